import pytest
import torch


@pytest.fixture(scope="session")
def random_policy(tmp_path_factory):
    """Folder of an untrained small policy, as shipped ones are stored."""
    from dpad_fast.train import small_policy
    from dpad_fast.train.policy import build_policy

    folder = tmp_path_factory.mktemp("models") / "policy"
    small_policy.save(build_policy(0), folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
