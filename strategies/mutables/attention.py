"""Multi-head attention whose features, heads or dropout are searched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nni_darts.strategies.architecture import Architecture
from nni_darts.strategies.mutables.base import RelaxedValues, pad_to
from nni_darts.strategies.mutables.settings import Settings
from nni_darts.strategies.relaxations import Relaxation

__all__ = ['MixedAttention']

_OPTIONS = {'key_padding_mask': None, 'need_weights': True, 'attn_mask': None, 'average_attn_weights': True, 'is_causal': False}
"""The optional arguments of torch's forward, in its order."""
_CHOSEN = {'embed_dim', 'num_heads', 'dropout', 'kdim', 'vdim'}


class MixedAttention(RelaxedValues):
    """A relaxed ``MultiheadAttention``: ``Σ_s w_s · pad(MHA_s(query, key, value))``.

    The projections of a setting are the first rows and columns of the largest ones, for query, key and value separately. Because of the
    softmax inside, the outputs of all settings are computed.

    Raises:
        ValueError: if another argument than the features, the heads and the dropout is searched, or there are ``add_bias_kv`` or
            ``add_zero_attn``.
    """

    def __init__(self, module: Any, settings: Settings, where: str, architecture: Architecture, relaxation: Relaxation) -> None:
        super().__init__(settings, where, architecture, relaxation)
        others = [name for name in settings.varying() if name not in _CHOSEN]
        first = settings.arguments[0]
        if others or first['add_bias_kv'] or first['add_zero_attn']:
            named = ', '.join(others) or 'a module with add_bias_kv or add_zero_attn'
            raise ValueError(f'{where}: of an attention {", ".join(sorted(_CHOSEN))} can be searched, not {named}')
        self.batch_first = first['batch_first']
        self.widths = settings.column('embed_dim')
        self.keys = [setting['kdim'] or setting['embed_dim'] for setting in settings.arguments]
        self.values = [setting['vdim'] or setting['embed_dim'] for setting in settings.arguments]
        for setting in settings.arguments:
            if setting['embed_dim'] % setting['num_heads']:
                raise ValueError(f'{where}: {setting["num_heads"]} heads do not divide {setting["embed_dim"]} features')
        widest = max(self.widths)
        like = next(module.parameters())
        self.query_weight = nn.Parameter(like.new_empty(widest, widest))
        self.key_weight = nn.Parameter(like.new_empty(widest, max(self.keys)))
        self.value_weight = nn.Parameter(like.new_empty(widest, max(self.values)))
        for weight in (self.query_weight, self.key_weight, self.value_weight):
            nn.init.xavier_uniform_(weight)
        biased = first['bias']
        self.input_bias = nn.Parameter(like.new_zeros(3, widest)) if biased else None
        self.out_proj = nn.Linear(widest, widest, bias=biased).to(like)
        if biased:
            nn.init.zeros_(self.out_proj.bias)
        self.train(module.training)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Arguments and results as those of torch's module."""
        setting = self.path_setting()
        if setting is not None:
            return self._compute(setting, query, key, value, *args, **kwargs)
        weights, widest = self.setting_weights(query), max(self.widths)
        results = [
            self._compute(number, query[..., :width], key[..., :kdim], value[..., :vdim], *args, **kwargs)
            for number, (width, kdim, vdim) in enumerate(zip(self.widths, self.keys, self.values))
        ]
        output = sum(weight * pad_to(result, widest, -1) for weight, (result, _) in zip(weights, results))
        if results[0][1] is None:
            return output, None
        return output, sum(weight * attended for weight, (_, attended) in zip(weights, results))

    def _compute(self, setting: int, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        options = {**_OPTIONS, **dict(zip(_OPTIONS, args)), **kwargs}
        arguments, width = self.settings.arguments[setting], self.widths[setting]
        batched = query.dim() == 3 and self.batch_first
        if batched:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        output, attended = functional.multi_head_attention_forward(
            query,
            key,
            value,
            width,
            arguments['num_heads'],
            None,
            None if self.input_bias is None else self.input_bias[:, :width].reshape(-1),
            None,
            None,
            False,
            arguments['dropout'],
            self.out_proj.weight[:width, :width],
            None if self.out_proj.bias is None else self.out_proj.bias[:width],
            training=self.training,
            use_separate_proj_weight=True,
            q_proj_weight=self.query_weight[:width, :width],
            k_proj_weight=self.key_weight[:width, : self.keys[setting]],
            v_proj_weight=self.value_weight[:width, : self.values[setting]],
            **options,
        )
        return output.transpose(0, 1) if batched else output, attended

    def frozen(self, setting: int) -> nn.Module:
        """Returns torch's module of a setting, with its part of the projections."""
        width = self.widths[setting]
        module = nn.MultiheadAttention(**self.settings.arguments[setting]).to(self.query_weight)
        parts = (
            self.query_weight[:width, :width],
            self.key_weight[:width, : self.keys[setting]],
            self.value_weight[:width, : self.values[setting]],
        )
        with torch.no_grad():
            if module.in_proj_weight is not None:
                module.in_proj_weight.copy_(torch.cat(parts))
            else:
                for target, part in zip((module.q_proj_weight, module.k_proj_weight, module.v_proj_weight), parts):
                    target.copy_(part)
            if self.input_bias is not None:
                module.in_proj_bias.copy_(self.input_bias[:, :width].reshape(-1))
                module.out_proj.bias.copy_(self.out_proj.bias[:width])
            module.out_proj.weight.copy_(self.out_proj.weight[:width, :width])
        return module.train(self.training)
