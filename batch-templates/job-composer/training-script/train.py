"""A training script: parameters from the command line, metrics to MLflow. `-p NAME=VALUE` of lossi becomes `--NAME VALUE`."""

import argparse

import mlflow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--complexity", type=float, default=1.0, help="C of the support vector classifier")
parser.add_argument("--steps", type=int, default=8, help="points of the learning curve")
parser.add_argument("--seed", type=int, default=0, help="of the split")
arguments = parser.parse_args()

train_x, test_x, train_y, test_y = train_test_split(*load_digits(return_X_y=True), random_state=arguments.seed)
with mlflow.start_run():
    mlflow.log_params(vars(arguments))
    for step in range(1, arguments.steps + 1):
        part = len(train_x) * step // arguments.steps
        model = SVC(C=arguments.complexity).fit(train_x[:part], train_y[:part])
        accuracy = model.score(test_x, test_y)
        mlflow.log_metric("accuracy", accuracy, step=part)
        print(f"{part} digits: accuracy {accuracy:.4f}", flush=True)
