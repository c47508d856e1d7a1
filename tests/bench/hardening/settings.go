package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/temper-ml/temper/core/harden"
)

// parseSettings reads the list of -set: settings that the hardened variants take in place of the defaults, to try them on dev rows.
func parseSettings(list string) (func(*harden.Options), error) {
	if list == "" {
		return nil, nil
	}
	var changes []func(*harden.Options)
	for _, item := range strings.Split(list, ",") {
		key, value, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf("-set %q: expected name=value", item)
		}
		if key == "method" {
			changes = append(changes, func(o *harden.Options) { o.Method = value })
			continue
		}
		x, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("-set %q: expected a number", item)
		}
		augment := func(f func(*harden.Augment)) {
			changes = append(changes, func(o *harden.Options) {
				before := o.Augment
				o.Augment = func(a *harden.Augment) {
					if before != nil {
						before(a)
					}
					f(a)
				}
			})
		}
		switch key {
		case "epochs":
			changes = append(changes, func(o *harden.Options) { o.Tune.Epochs = int(x) })
		case "lr":
			changes = append(changes, func(o *harden.Options) { o.Tune.LR = x })
		case "guard":
			changes = append(changes, func(o *harden.Options) { o.Guard = int(x) })
		case "numbers":
			changes = append(changes, func(o *harden.Options) { o.Canon.Numbers = x != 0 })
		case "balance":
			changes = append(changes, func(o *harden.Options) { o.Tune.Balance = x != 0 })
		case "wide":
			changes = append(changes, func(o *harden.Options) { o.Wide = int(x) })
		case "slips":
			changes = append(changes, func(o *harden.Options) { o.Slips = x })
		case "closed":
			changes = append(changes, func(o *harden.Options) { o.Closed = x })
		case "stand-ins":
			changes = append(changes, func(o *harden.Options) { o.StandIns = x != 0 })
		case "word-noise":
			changes = append(changes, func(o *harden.Options) {
				o.Perturbers = append(o.Perturbers, &harden.WordNoise{Least: x / 2, Rate: x})
			})
		case "synonyms":
			changes = append(changes, func(o *harden.Options) {
				o.Perturbers = append(o.Perturbers, &harden.SynonymNoise{Least: x / 4, Rate: x, N: 10})
			})
		case "char-rate":
			augment(func(a *harden.Augment) {
				for _, s := range a.Sources {
					if c, ok := s.(*harden.CharNoise); ok {
						c.Rate = x
					}
				}
			})
		case "share":
			augment(func(a *harden.Augment) { a.Share = x })
		case "consistency":
			augment(func(a *harden.Augment) { a.Consistency = x })
		case "likeness":
			augment(func(a *harden.Augment) { a.Likeness = x })
		case "epsilon":
			augment(func(a *harden.Augment) {
				if e, ok := a.Inner.(*harden.Embedding); ok {
					e.Epsilon, e.Radius, e.StepSize = x, x, x/2
				}
			})
		default:
			return nil, fmt.Errorf("-set %q: expected method, epochs, lr, guard, numbers, balance, wide, slips, closed, stand-ins, word-noise, synonyms, char-rate, share, consistency, likeness or epsilon", key)
		}
	}
	return func(o *harden.Options) {
		for _, f := range changes {
			f(o)
		}
	}, nil
}
