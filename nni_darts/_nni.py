"""The only place that imports ``nni.nas``, without its warnings.

NNI 3.0 prints two RuntimeWarnings about classes of newer torch releases, and setuptools adds a deprecation notice. None of them
concerns a user of this package. The filters apply only during the import.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings('ignore', category=RuntimeWarning, module=r'nni\..*')
    warnings.filterwarnings('ignore', category=DeprecationWarning)
    warnings.filterwarnings('ignore', message='.*pkg_resources.*')
    from nni.mutable import Categorical, CategoricalMultiple, Mutable, MutableSymbol
    from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.execution.event import TrainingEndEvent
    from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ModelSpace, MutableModule, Repeat
    from nni.nas.nn.pytorch.base import ParametrizedModule, recursive_freeze
    from nni.nas.nn.pytorch.cell import create_cell_op_candidates, preprocess_cell_inputs
    from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
    from nni.nas.oneshot.pytorch.strategy import OneShotStrategy, no_default_hook
    from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
    from nni.nas.space import ModelStatus, RawFormatModelSpace, current_model, model_context


__all__ = [
    'BaseOneShotLightningModule',
    'BaseSuperNetModule',
    'Categorical',
    'CategoricalMultiple',
    'Cell',
    'DataLoader',
    'InputChoice',
    'LayerChoice',
    'Lightning',
    'LightningModule',
    'ModelSpace',
    'ModelStatus',
    'Mutable',
    'MutableModule',
    'MutableSymbol',
    'OneShotStrategy',
    'ParametrizedModule',
    'RawFormatModelSpace',
    'Repeat',
    'SequentialExecutionEngine',
    'Trainer',
    'TrainingEndEvent',
    'create_cell_op_candidates',
    'current_model',
    'model_context',
    'no_default_hook',
    'preprocess_cell_inputs',
    'recursive_freeze',
]
