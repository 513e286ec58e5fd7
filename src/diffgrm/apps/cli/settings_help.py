"""Commands whose help ends with all settings of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typer.core import TyperCommand

from diffgrm.apps.cli.shared import recipe_as_written

if TYPE_CHECKING:
    from diffgrm.foundation.recipe import Recipe

WRITTEN = "diffgrm.apps.cli: arguments of the command"


class CommandWithSettings(TyperCommand):
    """A command whose help ends with a table of all recipe settings, as the recipe and the settings behind it have them.

    Attributes:
        recommender: whose settings where no recipe is given; None: of the default.
    """

    recommender: ClassVar[str | None] = None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what is written: help is asked for before any of it is read."""
        ctx.meta[WRITTEN] = [*args]
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """Help text, then every setting with its value."""
        text = super().get_help(ctx)
        given, _, _ = self.make_parser(ctx).parse_args([*ctx.meta.get(WRITTEN, [])])
        usual = {} if self.recommender is None else {"recommender": self.recommender}
        path, overrides = given.get("recipe"), given.get("overrides")
        _show_settings(recipe_as_written(path and Path(path), list(overrides or []), usual))
        return text


def _show_settings(recipe: Recipe) -> None:
    from diffgrm.apps.console import show_settings
    from diffgrm.foundation.recipe import rows_of_other_parts

    show_settings("Settings: section.key=value, in the recipe file or on the command line", recipe.table())
    show_settings("Settings of the other parts, with [the name that chooses the part]", rows_of_other_parts(recipe))
