"""Make ``import ts…`` work outside of workers: for the unit tests of models' handlers. Layer 3.

``import zts.compat`` is all there is to do, in a ``conftest.py`` for instance. From then on ``ts.torch_handler…``,
``ts.context`` and the other names of TorchServe are those that a worker gives its handler, even where a TorchServe is
installed; also in processes that the tests start.

>>> import zts.compat
>>> import ts
>>> ts.__version__
'0.12.0'
"""

from zts.workers import ts_compat

__all__: list[str] = []

ts_compat.install()
