"""Distributed training with PyTorch: started once per node, it restarts itself with torchrun, one process per GPU.

``lossi run train_ddp.py --nodes 2 --gpus 4 -p epochs=20`` (or ``sbatch script.sh``). Only the first process logs to MLflow. A
checkpoint in $LOSSI_OUTPUT_DIR lets it resume after a requeue.
"""

import argparse
import os
import pathlib
import signal
import sys

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--batch", type=int, default=64, help="samples per process and step")
parser.add_argument("--processes", type=int, default=0, help="per node; 0: one per GPU, or one without GPUs")


def torchrun(processes: int) -> None:
    """Become torchrun, which starts this file again: once per process, with RANK, LOCAL_RANK and WORLD_SIZE set."""
    import torch

    nodes = os.environ.get("LOSSI_NODES", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = ["-m", "torch.distributed.run", "--nnodes", nodes, "--node-rank", os.environ.get("LOSSI_NODE_RANK", "0")]
    command += ["--nproc-per-node", str(processes or torch.cuda.device_count() or 1)]
    if nodes == "1":
        command += ["--standalone"]
    else:
        command += ["--master-addr", os.environ["MASTER_ADDR"], "--master-port", os.environ["MASTER_PORT"]]
    os.execv(sys.executable, [sys.executable, *command, __file__, *sys.argv[1:]])  # noqa: S606 - argv, no shell


def train(lr: float, epochs: int, batch: int) -> None:
    """Train as one of the processes."""
    import mlflow
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")

    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)).to(device)
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    # All nodes share this folder, and a requeue keeps it.
    checkpoint = pathlib.Path(os.environ.get("LOSSI_OUTPUT_DIR", "."), "checkpoint.pt")
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1

    if rank == 0:
        mlflow.start_run()
        mlflow.log_params({"lr": lr, "epochs": epochs, "batch": batch, "processes": world})
    generator = torch.Generator().manual_seed(1000 + rank)
    for epoch in range(first, epochs):
        total = torch.zeros((), device=device)
        for _ in range(20):
            x = torch.randn(batch, 8, generator=generator).to(device)
            loss = torch.nn.functional.mse_loss(model(x), x.prod(dim=1, keepdim=True).tanh())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        dist.all_reduce(total)
        if rank == 0:
            mlflow.log_metric("loss", total.item() / (20 * world), step=epoch)
            print(f"epoch {epoch}: loss {total.item() / (20 * world):.4f} on {world} processes", flush=True)
            part = checkpoint.with_suffix(".part")
            torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, part)
            part.replace(checkpoint)
    if rank == 0:
        mlflow.end_run()
    dist.destroy_process_group()


if __name__ == "__main__":
    arguments = parser.parse_args()
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        torchrun(arguments.processes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # on a stop or preemption, close what is open
    train(arguments.lr, arguments.epochs, arguments.batch)
