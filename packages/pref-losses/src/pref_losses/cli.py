"""`predilect align`: train on preferences, compare methods, evaluate; light, so that `predilect --help` stays fast."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

TRAIN = "train"
_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}


class TrainByDefault(TyperGroup):
    """`predilect align --method ...` is `predilect align train --method ...`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in {*self.commands, "--help"}:
            args = [TRAIN, *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        super(TyperGroup, self).format_help(ctx, formatter)  # plain: the import of rich's help alone takes 0.25 s


app = typer.Typer(
    cls=TrainByDefault,
    no_args_is_help=True,
    add_completion=False,
    help="Align a language model with preferences: alpha-DPO, beta-DPO, Dr. DPO, Softmax-DPO and their relatives.\n\n"
    "predilect align --method METHOD --model MODEL --dataset DATA [--preset NAME] [--config FILE.yaml] [--use-peft]",
)


@app.command(TRAIN, context_settings=_ARGUMENTS, add_help_option=False)
def _train(context: typer.Context) -> None:
    """Train one model; the default. `predilect align train --help` lists every option."""
    from pref_losses.align.run import main

    main(context.args)


@app.command("compare", context_settings=_ARGUMENTS, add_help_option=False)
def _compare(context: typer.Context) -> None:
    """Train several methods on the same data: one table and plots."""
    from pref_losses.align.compare import main

    main(context.args)


@app.command("evaluate", context_settings=_ARGUMENTS, add_help_option=False)
def _evaluate(context: typer.Context) -> None:
    """Measure a trained model: accuracy, margin, KL, length bias, win rate."""
    from pref_losses.align.evaluate import main

    main(context.args)


@app.command("presets")
def _presets() -> None:
    """The papers' hyper-parameters that `--preset` knows."""
    from pref_losses.align.presets import describe_presets

    typer.echo(describe_presets())
