"""Train and evaluate TamiyoGNN: network, targets, losses, training, calibration, baselines and evaluation."""
