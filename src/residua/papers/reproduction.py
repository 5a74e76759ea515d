"""What a reproduction is: options, a run that gives JSON, and how those numbers are told and drawn."""

from collections.abc import Callable
from dataclasses import dataclass

from residua.errors import ParameterError
from residua.papers.table import Table


@dataclass(frozen=True)
class Option:
    """One setting of a run.

    Attributes
    ----------
    default : int, float, str, or tuple of one of these
        A tuple is a list of values.
    help : str
        One line.
    choices : tuple of str, optional
        The strings there are.
    """

    default: int | float | str | tuple
    help: str
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Reproduction:
    """One table or figure of a paper, measured again.

    Attributes
    ----------
    title : str
    source : str
        What is reproduced: paper, section, table or figure.
    options : dict of str to Option
    run : callable
        ``run(work, **options)`` returns results in JSON types; whatever takes long goes through ``work.map``.
    tell : callable
        ``tell(results)`` returns what a reader should see, paragraphs (str) and ``Table``, from the results alone.
    draw : callable
        ``draw(results)`` returns a matplotlib Figure, from the results alone.
    """

    title: str
    source: str
    options: dict[str, Option]
    run: Callable[..., dict]
    tell: Callable[[dict], list[str | Table]]
    draw: Callable[[dict], object]

    def settings(self, given: dict) -> dict:
        """All options by name, the defaults where nothing (or None) was given.

        Raises
        ------
        ParameterError
            When an option does not exist, or a value is none of its choices.
        """
        given = {name: value for name, value in given.items() if value is not None}
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise ParameterError(f"there is no option {', '.join(unknown)}; expected some of {sorted(self.options)}")
        for name, value in given.items():
            choices = self.options[name].choices
            wrong = [item for item in _several(value) if choices and item not in choices]
            if wrong or value == ():
                raise ParameterError(f"{name}={value!r}; expected one or more of {choices or 'such values'}")
        chosen = {name: given.get(name, option.default) for name, option in self.options.items()}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}


def _several(value) -> tuple:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)
