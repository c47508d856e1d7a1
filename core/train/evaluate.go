package train

// Scores is what a classifier reached on labelled texts.
type Scores struct {
	Examples int     `json:"examples"`
	Accuracy float64 `json:"accuracy"`
	// MacroF1 is the mean of the labels' F1, over labels that occur or were predicted (as scikit-learn counts them).
	MacroF1 float64      `json:"macro_f1"`
	Loss    float64      `json:"loss"`
	Labels  []LabelScore `json:"labels,omitempty"`
}

// LabelScore is precision, recall and F1 of one label; Support is how often it is the truth.
type LabelScore struct {
	Label     string  `json:"label"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
	Support   int     `json:"support"`
}

// Constant is the label that a model says of every text, "" when it says more than one, or when the texts have one alone.
func (s *Scores) Constant() string {
	said, labels := "", 0
	for _, l := range s.Labels {
		if l.Support == 0 {
			continue
		}
		labels++
		switch {
		case l.Recall == 1 && said == "":
			said = l.Label
		case l.Recall > 0:
			return ""
		}
	}
	if labels < 2 {
		return ""
	}
	return said
}

// Score compares predicted with true classes; loss is passed through.
func Score(predicted, truth []int32, labels []string, loss float64) Scores {
	n := len(labels)
	hit, said, is := make([]int, n), make([]int, n), make([]int, n)
	right := 0
	for i, y := range truth {
		if int(y) < n && y >= 0 {
			is[y]++
		}
		if p := predicted[i]; p >= 0 && int(p) < n {
			said[p]++
			if p == y {
				hit[p]++
				right++
			}
		}
	}
	s := Scores{Examples: len(truth), Loss: loss}
	if len(truth) > 0 {
		s.Accuracy = float64(right) / float64(len(truth))
	}
	counted := 0
	for c, name := range labels {
		l := LabelScore{Label: name, Support: is[c], Precision: share(hit[c], said[c]), Recall: share(hit[c], is[c]), F1: share(2*hit[c], said[c]+is[c])}
		s.Labels = append(s.Labels, l)
		if said[c]+is[c] > 0 {
			s.MacroF1 += l.F1
			counted++
		}
	}
	if counted > 0 {
		s.MacroF1 /= float64(counted)
	}
	return s
}

func share(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
