"""The papers, reproduced: one module per published table or figure, *paper* beside *ours*.

``residua reproduce NAME`` on the command line, or:

>>> from residua.papers.registry import MODULES
>>> sorted(set(MODULES) & {"theorem33", "tabular"})
['tabular', 'theorem33']
"""
