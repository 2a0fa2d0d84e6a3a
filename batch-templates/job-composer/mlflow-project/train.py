"""The entry point of the MLflow project: logs to the run that `mlflow run` has started."""

import argparse

import mlflow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--complexity", type=float, default=1.0, help="C of the support vector classifier")
parser.add_argument("--seed", type=float, default=0, help="of the split")
arguments = parser.parse_args()

train_x, test_x, train_y, test_y = train_test_split(*load_digits(return_X_y=True), random_state=int(arguments.seed))
with mlflow.start_run():
    model = SVC(C=arguments.complexity).fit(train_x, train_y)
    mlflow.log_metric("accuracy", model.score(test_x, test_y))
