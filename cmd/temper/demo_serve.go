package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/temper-ml/temper/backend"
	browserdemo "github.com/temper-ml/temper/browser-demo"
	"github.com/temper-ml/temper/core/bundle"
	"github.com/temper-ml/temper/core/checkpoint"
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

// serveDemo serves the page with the two models until ctx ends.
func (a *app) serveDemo(ctx context.Context, addr, dir string) error {
	var m browserdemo.Models
	for name, to := range map[string]*[]byte{demoOrdinary: &m.Ordinary, demoHardened: &m.Hardened} {
		f, err := checkpoint.OpenFolder(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		files, err := bundle.FromFolder(f)
		if err == nil {
			var b bytes.Buffer
			err = bundle.Write(&b, files)
			*to = b.Bytes()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	m.Encoder = m.Ordinary
	h, err := browserdemo.Handler(m)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	fmt.Fprintf(a.err, "\nthe page: http://%s/ (Ctrl-C ends it)\n", l.Addr())
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
