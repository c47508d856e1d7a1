package main

import (
	"context"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/harden"
	"github.com/temper-ml/temper/core/train"
)

// scoresOf is the accuracy of the hardened model on a data set.
func scoresOf(ctx context.Context, res *harden.Result, k backend.Kernels, d *data.Dataset) (float64, error) {
	if err := d.MapLabels(res.Bundle.Model.Config().Labels); err != nil {
		return 0, err
	}
	ex, err := train.EncodeAll(res.Bundle, d, 0)
	if err != nil {
		return 0, err
	}
	var arena grad.Arena
	s, err := train.Evaluate(ctx, k, &arena, res.Bundle.Model, train.Loss{}, ex, d.LabelNames)
	return s.Accuracy, err
}

func (a *app) serveDemo(context.Context, string, *harden.Result) error { return errNoPage }
