-- PostgreSQL runs this once, when its volume is new. Prefect's database is made by POSTGRES_DB.
CREATE DATABASE mlflow;
