"""What counts as a secret, in texts, files, file names and the environment."""

from __future__ import annotations

import pytest

from mergeline.support.secrets import (
    environment_without_secrets,
    holds_secret,
    is_secret_file,
    one_line,
    without_queries,
    without_secrets,
)

PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"
TOKENS = ["hf_" + "aB3" * 7, "ghp_" + "aB3" * 12, "AKIA" + "AB34" * 4, PRIVATE_KEY]


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_replaced_in_texts_and_keeps_a_file_from_being_published(token: str) -> None:
    assert without_secrets(f"with {token} inside") == "with *** inside"
    assert holds_secret(b"\xff with " + token.encode())


@pytest.mark.parametrize(
    "text", ["hf_model_of_a_friend", "half_AKIA", "a BEGIN PRIVATE KEY b", "https://a.example/b@c"]
)
def test_ordinary_text_stays(text: str) -> None:
    assert without_secrets(text) == text
    assert not holds_secret(text.encode())


def test_a_password_in_an_address_and_the_home_directory_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    text = "postgresql://ada:secret@db/x in /home/ada/models, not /home/ada.old"
    assert without_secrets(text) == "postgresql://***@db/x in ~/models, not /home/ada.old"


def test_a_secret_of_ours_is_known_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct-horse-battery")
    monkeypatch.setenv("PREFECT_API_KEY", "short")
    assert without_secrets("correct-horse-battery, in short") == "***, in short"
    assert holds_secret(b"correct-horse-battery")


def test_a_query_may_be_a_signature() -> None:
    assert without_queries("GET https://a.example/b?X-Signature=abc&c=1 twice?") == "GET https://a.example/b twice?"


def test_one_line_is_short_and_without_secrets() -> None:
    line = one_line(f"a\n  {TOKENS[0]} b " + "c" * 400)
    assert line.startswith("a *** b c")
    assert (len(line), line[-3:]) == (300, "...")


@pytest.mark.parametrize("name", ["server.pem", "ID_RSA.pub", "client_secret.json", ".env", "token.txt", "credentials"])
def test_file_names_of_secrets(name: str) -> None:
    assert is_secret_file(name)


@pytest.mark.parametrize("name", ["tokenizer.json", "special_tokens_map.json", "config.json", "environment.yml"])
def test_file_names_of_models(name: str) -> None:
    assert not is_secret_file(name)


def test_the_environment_loses_secrets_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        **dict.fromkeys(("HF_TOKEN", "HF_TOKEN_PATH", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "PGPASSWORD"), "x"),
        **dict.fromkeys(("OPENAI_API_KEY", "openai_apikey", "MYSQL_PWD", "PREFECT_API_AUTH_STRING", "GITHUB_PAT"), "x"),
        **dict.fromkeys(("GOOGLE_APPLICATION_CREDENTIALS", "MERGELINE_WEBHOOK_SECRET", "SSH_AUTH_SOCK"), "x"),
        "DATABASE_URL": "postgresql://ada:secret@db/x",
    }
    kept = {
        **dict.fromkeys(
            ("PATH", "PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "KEYBOARD", "HF_HUB_CACHE", "PATTERN"), "x"
        ),
        "MLFLOW_TRACKING_URI": "https://mlflow.example/a",
        "https_proxy": "http://ada:secret@proxy:3128",
    }
    for name in environment_without_secrets():
        monkeypatch.delenv(name)
    for name, value in (secrets | kept).items():
        monkeypatch.setenv(name, value)
    assert environment_without_secrets() == kept
