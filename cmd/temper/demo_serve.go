package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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

// bundled packs a folder into a bundle and closes it.
func bundled(f *checkpoint.Folder, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	files, err := bundle.FromFolder(f)
	if err == nil {
		err = bundle.Write(&b, files)
	}
	return b.Bytes(), errors.Join(err, f.Close())
}

// pageModels are the models of the page: the two of the demo in dir, the built-in encoder to teach, and a decoder.
func (a *app) pageModels(dir, decoder string) (m browserdemo.Models, err error) {
	if m.Ordinary, err = bundled(checkpoint.OpenFolder(filepath.Join(dir, demoOrdinary))); err != nil {
		return m, err
	}
	if m.Hardened, err = bundled(checkpoint.OpenFolder(filepath.Join(dir, demoHardened))); err != nil {
		return m, err
	}
	if m.Encoder, err = bundled(a.builtin(builtinBase)); err != nil {
		return m, err
	}
	switch {
	case a.named(decoder):
		m.Story = true
		m.Decoder, err = bundled(a.builtin(decoder))
	case strings.EqualFold(filepath.Ext(decoder), ".gguf"):
		m.DecoderName = "decoder.gguf"
		m.Decoder, err = os.ReadFile(decoder)
	default:
		m.Decoder, err = bundled(checkpoint.OpenFolder(decoder))
	}
	return m, err
}

// serveDemo serves the page until ctx ends.
func (a *app) serveDemo(ctx context.Context, addr string, m browserdemo.Models) error {
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
