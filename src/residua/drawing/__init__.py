"""How things look: an example to a person, and what every picture shares."""

from residua.drawing.figure import BASE, DARK, GREY, MEMORY, figure, quiet
from residua.drawing.look import Images, Look, data_uri, picture_of, png
from residua.drawing.panels import draw_look

__all__ = [
    "BASE",
    "DARK",
    "GREY",
    "MEMORY",
    "Images",
    "Look",
    "data_uri",
    "draw_look",
    "figure",
    "picture_of",
    "png",
    "quiet",
]
