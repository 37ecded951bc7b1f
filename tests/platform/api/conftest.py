"""The API over a living control plane, called in this process."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from helios.api.app import create_app

TOKEN = "a-token-for-tests"


@pytest.fixture
def app(house: Any) -> FastAPI:
    return create_app(house.plane, token=TOKEN, logs=house.cell.read, links={"mlflow": "http://127.0.0.1:5000"})


@pytest.fixture
def api(app: FastAPI) -> Iterator[TestClient]:
    """A client that holds the token; what the server raises comes back as an answer, as it would to anybody."""
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}, raise_server_exceptions=False) as client:
        yield client
