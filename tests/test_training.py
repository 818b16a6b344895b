"""A release trains a model as it is: each config read back with `datasets`, two of them given to TRL's SFTTrainer.

Needs torch and trl: pip install -e '.[dev,training]' && pytest -m training
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from release_help import make_recipe, make_task

from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.release.publish import publish
from selfinstruct_argilla.tasks import Status

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]  # the trainer's libraries warn a lot
STEPS = 8
CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    with TaskPool.open(f"sqlite:///{folder}/pool.db") as pool:
        pool.import_tasks([make_task(n, instances=1 + n % 2) for n in range(60)], Status.ACCEPTED)
        publish(pool, make_recipe(folder), to=folder / "out")
    return folder / "out"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


def tokenizer_of(texts: list[str]) -> Any:
    """A byte-level tokenizer that was trained on the release itself: nothing is downloaded."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=500, special_tokens=["<pad>", "<eos>"], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, pad_token="<pad>", eos_token="<eos>", chat_template=CHAT
    )


@pytest.mark.parametrize("config", ["prompt_completion", "messages"])
def test_a_tiny_model_learns_from_a_release(config: str, release: Path, tmp_path: Path, no_hub: None) -> None:
    torch = pytest.importorskip("torch")
    trl = pytest.importorskip("trl")
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = load_dataset(str(release), "alpaca", split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = tokenizer_of([text for row in texts for text in row.values()])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    settings = trl.SFTConfig(
        output_dir=str(tmp_path / "model"), max_steps=STEPS, per_device_train_batch_size=8, learning_rate=1e-2,
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, bf16=False, max_length=256, seed=0,
    )  # fmt: skip
    data = load_dataset(str(release), config, split="train", cache_dir=str(tmp_path / "cache"))
    trainer = trl.SFTTrainer(model=model, args=settings, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == STEPS
    assert losses[-1] < 0.8 * losses[0], losses


def test_every_config_is_read_back(release: Path, tmp_path: Path, no_hub: None) -> None:
    columns = {
        "tasks": "instances", "alpaca": "output", "prompt_completion": "completion", "messages": "messages",
    }  # fmt: skip
    for config, column in columns.items():
        loaded = load_dataset(str(release), config, cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].num_rows > 0
        assert all(row[column] for row in loaded["train"])
