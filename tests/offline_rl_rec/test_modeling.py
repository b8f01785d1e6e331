from __future__ import annotations

import pytest
import torch

from offline_rl_rec import AgentConfig, AgentModel
from predilect.modeling import SASRec, SASRecConfig

HISTORY = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
TARGET = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 10]])  # the fourth of the second row is no row of this part
REWARD = torch.tensor([[0.2, 0.2, 1.0, 0.2, 1.0], [0.2, 0.2, 0.2, 0.2, 1.0]])
DONE = torch.tensor([[False] * 4 + [True], [False] * 5])
LEFT = torch.tensor([[4.0, 3, 2, 1, 0], [8, 7, 6, 5, 4]])
BATCH = {"history": HISTORY, "target": TARGET, "reward": REWARD, "done": DONE, "remaining": LEFT}
EVERYTHING = {
    "value_weight": 1.0,
    "negative_weight": 1.0,
    "conservative_weight": 1.0,
    "reward_weight": 0.1,
    "transition_weight": 0.1,
    "imagined_weight": 0.1,
    "remaining_weight": 0.1,
    "advantage_after": 0,
}


def make(**options) -> AgentModel:
    torch.manual_seed(0)
    return AgentModel(AgentConfig(num_items=12, hidden_size=8, max_history=5, **options)).eval()


def loss_and_gradients(model, **batch):
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def parts(model, **changed) -> dict[str, float]:
    torch.manual_seed(1)
    given = {**BATCH, **changed}
    return {
        name: float(x.detach()) for name, (_, x) in model.losses(model._transitions(*given.values(), None)).items()
    }


def test_without_weights_the_agent_is_its_backbone():
    plain = make()
    backbone = SASRec(SASRecConfig(num_items=12, hidden_size=8, max_history=6)).eval()
    backbone.load_state_dict(plain.online.backbone.state_dict())
    torch.testing.assert_close(plain.scores(HISTORY), backbone.scores(HISTORY))
    loss, gradients = loss_and_gradients(plain, **BATCH)
    expected, of_backbone = loss_and_gradients(backbone, history=HISTORY, target=TARGET)
    torch.testing.assert_close(loss, expected)
    for name, gradient in of_backbone.items():
        torch.testing.assert_close(gradients[f"online.backbone.{name}"], gradient)


def test_mcrl_without_its_weights_is_snqn():
    mcrl = make(**{**EVERYTHING, "remaining_weight": 0.0, "advantage_after": None, "imagined_weight": 0.0})
    snqn = make(value_weight=1.0, negative_weight=1.0)
    snqn.load_state_dict({k: v for k, v in mcrl.state_dict().items() if k in snqn.state_dict()})
    both = parts(mcrl)
    assert {name: both[name] for name in parts(snqn)} == pytest.approx(parts(snqn))
    assert set(both) - set(parts(snqn)) == {"conservative", "reward", "transition"}


def test_values_of_the_batch_by_hand():
    model = make(value_weight=1.0, discount=0.5)
    with torch.no_grad():
        model.target.bias += torch.randn(12)  # the copies differ
    errors = []
    for row in range(2):
        for column in range(5):
            action = int(TARGET[row, column])
            if not action:
                continue
            history = HISTORY[row : row + 1, : column + 1]
            after = torch.cat([history, TARGET[row : row + 1, column : column + 1]], 1)
            q = model.online.all_values(model.online.backbone.last_state(history))[0, action - 1]
            best = model.online.all_values(model.online.backbone.last_state(after))[0].argmax()
            following = model.target.all_values(model.target.backbone.last_state(after))[0, best]
            y = REWARD[row, column] + (0 if DONE[row, column] else 0.5 * following)
            errors.append(float((0.5 * (q - y) ** 2).detach()))
    assert parts(model)["value"] == pytest.approx(sum(errors) / 9, rel=1e-5)


def test_no_part_trains_the_target_copy_or_padding():
    model = make(**EVERYTHING).train()
    _, gradients = loss_and_gradients(model, **BATCH)
    assert not [name for name in gradients if name.startswith("target.")]
    assert not model.target.training
    assert not gradients["online.backbone.items.weight"][0].any()
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(gradients)


def test_what_follows_a_terminal_step_counts_for_nothing():
    model = make(**EVERYTHING)
    ended = {"done": torch.ones_like(DONE)}
    before = parts(model, **ended)
    with torch.no_grad():
        model.target.bias += 5
    changed = parts(model, **ended)
    assert changed["value"] == before["value"]
    assert changed["transition"] == before["transition"] == 0


def test_the_target_copy_follows_and_is_due_every_few_steps():
    model = make(value_weight=1.0, target_rate=0.25, target_every=2)
    with torch.no_grad():
        model.online.bias += 4
    model.after_step()
    assert model.target.bias.tolist() == [0.0] * 12
    model.after_step()
    assert model.target.bias.tolist() == [1.0] * 12
    assert int(model.steps) == 2


def test_the_advantage_weights_after_its_steps_and_never_below_zero():
    model = make(value_weight=1.0, negative_weight=1.0, advantage_after=1)
    plain = make(value_weight=1.0, negative_weight=1.0)
    assert parts(model)["cross_entropy"] == pytest.approx(parts(plain)["cross_entropy"])
    model.after_step()
    with torch.no_grad():
        model.online.bias += 3 * torch.arange(12)
    torch.manual_seed(1)
    t = model._transitions(*BATCH.values(), None)
    advantage = model._advantage(
        t, model.online.values(t.state, t.action), model.online.projection(t.state), model._draw()
    )
    assert advantage.min() == 0
    assert 0 < advantage.max() <= 10
    losses = torch.nn.functional.cross_entropy(
        t.state @ model.online.table[1:].T + model.online.backbone.item_bias, t.action - 1, reduction="none"
    )
    assert parts(model)["cross_entropy"] == pytest.approx(float((advantage * losses).mean()), rel=1e-4)


@pytest.mark.parametrize("catalogue", ["full", "sampled"])
@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "caser", "nextitnet"])
def test_every_backbone_ranks_as_it_did_when_loaded(backbone, catalogue, tmp_path):
    model = make(backbone=backbone, catalogue=catalogue, head="q", **EVERYTHING)
    _, gradients = loss_and_gradients(model.train(), **BATCH)
    assert all(g.isfinite().all() for g in gradients.values())
    model.after_step()
    model.eval().save_pretrained(tmp_path)
    loaded = AgentModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded.scores(HISTORY), model.scores(HISTORY), rtol=0, atol=0)
    assert int(loaded.steps) == 1
    assert not any(p.requires_grad for p in loaded.target.parameters())
    longer = torch.cat([torch.tensor([[3], [4]]), HISTORY[:, 1:]], 1)
    torch.testing.assert_close(model.scores(torch.cat([torch.tensor([[7], [8]]), longer], 1)), model.scores(longer))


def test_weights_of_rows_count_in_every_part():
    model = make(value_weight=1.0, conservative_weight=1.0, remaining_weight=1.0)
    weight = torch.zeros(2, 5)
    weight[0] = 1
    one = {name: values[:1] for name, values in BATCH.items()}
    torch.testing.assert_close(model(**BATCH, weight=weight).loss, model(**one).loss)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reward": REWARD.index_fill(1, torch.tensor([2]), torch.nan)}, "rewards must not be NaN"),
        ({"target": TARGET + 5}, r"targets must hold ids in 0..12 .got 5..15"),
        ({"done": DONE[:, 1:]}, "done must have the shape of history"),
        ({"reward": None}, "learns from reward"),
    ],
)
def test_bad_batches(changed, message):
    with pytest.raises(ValueError, match=message):
        make(value_weight=1.0)(**{**BATCH, **changed})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "q"}, "nothing trains them"),
        ({"cross_entropy_weight": 0.0}, "set cross_entropy_weight above 0"),
        ({"advantage_after": 5}, "set both weights above 0"),
        ({"imagined_weight": 1.0, "value_weight": 1.0}, "needs both models"),
        ({"discount": float("nan")}, r"discount must be in \[0, 1\]"),
        ({"value_weight": float("nan")}, "value_weight must be a finite number"),
        ({"target_rate": 0.0}, "target_rate"),
        ({"backbone": "lstm"}, "backbone must be one of sasrec"),
        ({"backbone_options": {"num_layer": 1}}, "has no option num_layer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_agents_without_a_part_say_so():
    with pytest.raises(ValueError, match="has no values"):
        make().all_values(HISTORY)
    with pytest.raises(ValueError, match="has no transition model"):
        make().predicted_states(torch.zeros(1, 8), torch.tensor([1]))
