"""CS231n's `solver`: trains any model with `params` and `loss(X, y)` by stochastic gradients.

Swap it in: replace the contents of `cs231n/solver.py` in the assignment by the one line
    from cnnfast.courses.cs231n.solver import *
Keyword arguments, attributes, what is printed and the order in which NumPy's global generator is
asked are the course's, so that a seed gives the same batches and the same accuracies.

Different from the course's file:
- its update rules are those of cnnfast's `optim`, not the student's;
- a checkpoint is `NAME_epoch_3.npz` instead of a pickle of the whole model, so that it can be read
  with no class of yours at hand and without running its code: `np.load` gives `params.W1` and its
  like, `epoch` and the three histories;
- if no accuracy was ever above 0, the model keeps its parameters (there they are gone).
"""

from __future__ import annotations, division, print_function

from builtins import range  # noqa: UP029 - exported: the course's file does
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._promote import RealArray
from . import optim

__all__ = ["Solver", "division", "np", "optim", "print_function", "range"]


class Solver:
    """Trains a model on data {"X_train", "y_train", "X_val", "y_val"}.

    The model has `params`, a dictionary of arrays, and `loss(X, y)`, which gives the loss and a
    dictionary of gradients, and without y the scores. After `train()` it has the parameters that
    were best on the validation data; `loss_history`, `train_acc_history` and `val_acc_history`
    tell how it went.
    """

    def __init__(
        self,
        model: Any,
        data: Mapping[str, RealArray],
        *,
        update_rule: str = "sgd",
        optim_config: Mapping[str, Any] | None = None,
        lr_decay: float = 1.0,
        batch_size: int = 100,
        num_epochs: int = 10,
        num_train_samples: int | None = 1000,
        num_val_samples: int | None = None,
        checkpoint_name: str | None = None,
        print_every: int = 10,
        verbose: bool = True,
        **unknown: object,
    ) -> None:
        """Take model, data and the course's keyword arguments.

        update_rule names a function of `optim`, whose settings are optim_config; lr_decay is
        multiplied onto the learning rate after each epoch. Accuracies are measured on
        num_train_samples and num_val_samples random images (None: on all).
        """
        if unknown:
            names = ", ".join(f'"{name}"' for name in unknown)
            raise ValueError(f"Unrecognized arguments {names}")
        if update_rule not in ("sgd", "sgd_momentum", "rmsprop", "adam"):
            raise ValueError(f'Invalid update_rule "{update_rule}"')
        self.model = model
        self.X_train, self.y_train = data["X_train"], data["y_train"]
        self.X_val, self.y_val = data["X_val"], data["y_val"]
        self.update_rule = getattr(optim, update_rule)
        self.optim_config = {} if optim_config is None else optim_config
        self.lr_decay = lr_decay
        self.batch_size = batch_size
        self.num_epochs = num_epochs
        self.num_train_samples = num_train_samples
        self.num_val_samples = num_val_samples
        self.checkpoint_name = checkpoint_name
        self.print_every = print_every
        self.verbose = verbose
        self._reset()

    def _reset(self) -> None:
        """Forget what was learned about the training; the model keeps its parameters."""
        self.epoch = 0
        self.best_val_acc = 0.0
        self.best_params: dict[str, RealArray] = {}
        self.loss_history: list[float] = []
        self.train_acc_history: list[float] = []
        self.val_acc_history: list[float] = []
        self.optim_configs = {name: dict(self.optim_config) for name in self.model.params}

    def train(self) -> None:
        """Go through the epochs, and leave the best parameters in the model."""
        per_epoch = max(len(self.X_train) // self.batch_size, 1)
        iterations = self.num_epochs * per_epoch
        for t in range(iterations):
            self._step()
            if self.verbose and t % self.print_every == 0:
                print(f"(Iteration {t + 1} / {iterations}) loss: {self.loss_history[-1]:f}")
            ends_epoch = (t + 1) % per_epoch == 0
            if ends_epoch:
                self.epoch += 1
                for config in self.optim_configs.values():
                    config["learning_rate"] *= self.lr_decay
            if t == 0 or t == iterations - 1 or ends_epoch:
                self._measure()
        self.model.params = self.best_params or self.model.params

    def _step(self) -> None:
        """Update the parameters by the gradients of one random batch."""
        batch = np.random.choice(len(self.X_train), self.batch_size)
        loss, grads = self.model.loss(self.X_train[batch], self.y_train[batch])
        self.loss_history.append(loss)
        params, configs = self.model.params, self.optim_configs
        for name, w in params.items():
            params[name], configs[name] = self.update_rule(w, grads[name], configs[name])

    def _measure(self) -> None:
        """Record both accuracies, and keep the parameters if they are the best so far."""
        train = self.check_accuracy(self.X_train, self.y_train, self.num_train_samples)
        val = self.check_accuracy(self.X_val, self.y_val, self.num_val_samples)
        self.train_acc_history.append(train)
        self.val_acc_history.append(val)
        self._save_checkpoint()
        if self.verbose:
            print(
                f"(Epoch {self.epoch} / {self.num_epochs}) train acc: {train:f}; val_acc: {val:f}"
            )
        if val > self.best_val_acc:
            self.best_val_acc = val
            self.best_params = {name: w.copy() for name, w in self.model.params.items()}

    def check_accuracy(
        self, X: RealArray, y: RealArray, num_samples: int | None = None, batch_size: int = 100
    ) -> float:
        """Give the fraction of X, or of num_samples random images of it, that the model gets right.

        The model sees batch_size images at a time.
        """
        if num_samples is not None and len(X) > num_samples:
            chosen = np.random.choice(len(X), num_samples)
            X, y = X[chosen], y[chosen]
        guesses = [
            np.argmax(self.model.loss(X[start : start + batch_size]), axis=1)
            for start in range(0, len(X), batch_size)
        ]
        return float(np.mean(np.concatenate(guesses) == y))

    def _save_checkpoint(self) -> None:
        """Write parameters and histories, if there is a name for them."""
        if self.checkpoint_name is None:
            return
        path = f"{self.checkpoint_name}_epoch_{self.epoch}.npz"
        if self.verbose:
            print(f'Saving checkpoint to "{path}"')
        np.savez(
            path,
            epoch=self.epoch,
            loss_history=self.loss_history,
            train_acc_history=self.train_acc_history,
            val_acc_history=self.val_acc_history,
            **{f"params.{name}": w for name, w in self.model.params.items()},
        )
