import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU if there is one, else the CPU, where Triton's interpreter runs."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
