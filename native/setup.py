"""One shared library with a C ABI: it knows nothing of Python, so one wheel serves every Python of a system."""

import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

WINDOWS = sys.platform == "win32"
COMPILE = ["/O2", "/std:c++17", "/EHsc"] if WINDOWS else ["-O3", "-std=c++17", "-fvisibility=hidden", "-pthread"]


class Library(build_ext):
    """Named kernels.so (kernels.dll), without an entry point for Python."""

    def get_ext_filename(self, name: str) -> str:
        return f"{name.replace('.', '/')}.{'dll' if WINDOWS else 'so'}"

    def get_export_symbols(self, extension: Extension) -> list[str]:
        return []


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


kernels = Extension(
    "residua_native.kernels",
    ["src/residua_native/kernels.cpp"],
    language="c++",
    extra_compile_args=COMPILE,
    extra_link_args=[] if WINDOWS else ["-pthread"],
)
setup(ext_modules=[kernels], cmdclass={"build_ext": Library, "bdist_wheel": Wheel})
