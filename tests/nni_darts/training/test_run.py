"""The trainer itself: what lies in the environment of a cluster's job is nothing to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nni_darts.recipes import Recipe
from nni_darts.training.run import create_trainer

CLUSTERS = {
    'slurm': {'SLURM_NTASKS': '4', 'SLURM_JOB_ID': '7', 'SLURM_PROCID': '3', 'SLURM_LOCALID': '3', 'SLURM_NODEID': '1'},
    'slurm per node': {'SLURM_NTASKS': '4', 'SLURM_NTASKS_PER_NODE': '4', 'SLURM_NNODES': '2', 'SLURM_PROCID': '0'},
    'lsf': {'LSB_JOBID': '7', 'LSB_DJOB_RANKFILE': '/absent', 'JSM_NAMESPACE_LOCAL_RANK': '1', 'JSM_NAMESPACE_SIZE': '4'},
    'torchelastic': {'TORCHELASTIC_RUN_ID': 'x', 'WORLD_SIZE': '4', 'RANK': '3', 'LOCAL_RANK': '3', 'GROUP_RANK': '1'},
    'mpi': {'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '3', 'PMI_SIZE': '4', 'PMI_RANK': '3'},
    'kubeflow': {'KUBERNETES_PORT': 'x', 'MASTER_ADDR': 'nowhere', 'MASTER_PORT': '9', 'WORLD_SIZE': '4', 'RANK': '3'},
}


@pytest.mark.parametrize('cluster', CLUSTERS)
def test_variables_of_a_cluster_change_nothing(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CLUSTERS[cluster].items():
        monkeypatch.setenv(name, value)
    trainer = create_trainer(tmp_path, Recipe.load('digits', {'accelerator': 'cpu'}), 1)
    assert (trainer.world_size, trainer.global_rank, trainer.num_devices, trainer.is_global_zero) == (1, 0, 1, True)
