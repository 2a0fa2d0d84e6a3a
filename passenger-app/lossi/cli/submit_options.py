"""The options that `lossi run` and `lossi sweep` share."""

from __future__ import annotations

from typing import Annotated

import typer

Source = Annotated[str, typer.Argument(help="Notebook (.ipynb), script (.py, .R), or after `--` a command.", show_default=False)]
Arguments = Annotated[list[str] | None, typer.Argument(help="Arguments of the script or command.", show_default=False)]
Parameters = Annotated[
    list[str] | None,
    typer.Option("-p", "--param", metavar="NAME=VALUE", help="A parameter of the notebook or script; again for each."),
]
ParameterFile = Annotated[
    str | None, typer.Option("--params", metavar="FILE", help="Parameters as one JSON object in a file; - reads stdin.")
]
Environment = Annotated[str | None, typer.Option("-e", "--env", help="Environment of the catalogue; see `lossi env list`.")]
Cpus = Annotated[int | None, typer.Option("-c", "--cpus", min=1, help="Cores per task.")]
Memory = Annotated[str | None, typer.Option("-m", "--memory", help="Memory per task, such as 8G; plain numbers are MiB.")]
Gpus = Annotated[str | None, typer.Option("--gpus", help="GPUs per task: a number, or TYPE:NUMBER.")]
Time = Annotated[
    str | None, typer.Option("-t", "--time", help="Time limit per task as Slurm writes it: 30, 1:30:00, 2-00:00:00.")
]
Partition = Annotated[str | None, typer.Option(help="Partition.")]
Account = Annotated[str | None, typer.Option("-A", "--account", help="Account.")]
Qos = Annotated[str | None, typer.Option(help="Quality of service.")]
Name = Annotated[str | None, typer.Option("-n", "--name", help="Name of the job.")]
Experiment = Annotated[str | None, typer.Option("-x", "--experiment", help="MLflow experiment; without it, the notebook's name.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Tag for every run; again for each.")]
MaxParallel = Annotated[int | None, typer.Option("--max-parallel", min=1, help="At most this many tasks at once.")]
Nodes = Annotated[
    int | None,
    typer.Option("-N", "--nodes", min=1, help="Nodes per task, for scripts and commands; each gets cores, memory and GPUs."),
]
Constraint = Annotated[str | None, typer.Option("-C", "--constraint", help="Features of the nodes, as Slurm writes them.")]
Cluster = Annotated[str | None, typer.Option("--cluster", help="Cluster to run on; see `lossi clusters list`.")]
SchedulerName = Annotated[
    str | None, typer.Option("--scheduler", help="How it is handed over: local, slurm_cli, slurm_rest or slurm_pyslurm.")
]
Here = Annotated[
    bool, typer.Option("--here", help="On this machine, or inside the allocation that this shell is in, instead of queueing.")
]
After = Annotated[
    list[str] | None,
    typer.Option(
        "--after", metavar="JOB[:ok|any|not_ok]", help="Start when that job has ended (ok: and has succeeded); again for each."
    ),
]
NoRequeue = Annotated[
    bool, typer.Option("--no-requeue", help="Do not start a task again after a node failed or it was preempted.")
]
Key = Annotated[str | None, typer.Option("--idempotency-key", help="The same key submits once, however often it is called.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return after submission; the job goes on by itself.")]
DryRun = Annotated[bool, typer.Option("--preview", help="Show script, command line and tasks; submit nothing.")]
