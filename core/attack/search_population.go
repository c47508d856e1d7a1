package attack

import "math"

// Genetic evolves a population of texts: children mix the words of two parents and get one more change (Alzantot et al. 2018).
type Genetic struct {
	Size, Rounds int
	// Temperature of parent selection (default 0.3); smaller prefers the fittest.
	Temperature float64
	// PatienceOne gives up after a round without improvement.
	PatienceOne bool
}

func (g Genetic) Name() string { return "genetic" }

// member is a text of the population with the number of candidates still worth trying per original word.
type member struct {
	Scored
	weights []float64
}

func (g Genetic) Run(t *Task) (Scored, error) {
	size, rounds, temp := max(2, g.Size), max(1, g.Rounds), g.Temperature
	if temp <= 0 {
		temp = 0.3
	}
	r := t.Rand()
	weights := make([]float64, t.Original.Len())
	for i := range weights {
		cands, err := t.Candidates(t.Original, []int{i})
		if err != nil {
			return t.base, err
		}
		weights[i] = float64(len(cands))
	}
	population := make([]member, 0, size)
	for range size {
		m, err := g.mutate(t, r, member{t.base, append([]float64(nil), weights...)})
		if err != nil {
			return t.base, err
		}
		population = append(population, m)
		if t.Over() || m.Won {
			return fittest(population, t.base).Scored, nil
		}
	}
	best := t.base
	for range rounds {
		top := fittest(population, best)
		if g.PatienceOne && !(top.Value > best.Value) {
			return top.Scored, nil
		}
		best = top.Scored
		if best.Won || t.Over() {
			return best, nil
		}
		chance := make([]float64, len(population))
		for i, m := range population {
			chance[i] = math.Exp(float64(m.Value-best.Value) / temp)
		}
		next := []member{top}
		for len(next) < size && !t.Over() {
			a, b := population[r.Weighted(chance)], population[r.Weighted(chance)]
			child, err := g.cross(t, r, a, b)
			if err != nil {
				return best, err
			}
			if t.Over() || child.Won {
				next = append(next, child)
				break
			}
			if child, err = g.mutate(t, r, child); err != nil {
				return best, err
			}
			next = append(next, child)
			if child.Won {
				break
			}
		}
		population = next
	}
	return fittest(population, best).Scored, nil
}

// fittest is the member of highest value, a winner before all others; floor when none is better.
func fittest(population []member, floor Scored) member {
	best := member{Scored: floor}
	for _, m := range population {
		if m.Won && !best.Won || m.Won == best.Won && (m.Value > best.Value || best.weights == nil && m.Value >= best.Value) {
			best = m
		}
	}
	if best.weights == nil {
		best.weights = make([]float64, len(best.Origin))
	}
	return best
}

// mutate changes one word, drawn by weight, for the better, trying further words when the first gives nothing.
func (g Genetic) mutate(t *Task, r *Rand, m member) (member, error) {
	weights := append([]float64(nil), m.weights...)
	for {
		i := r.Weighted(weights)
		if i < 0 || t.Over() {
			return m, nil
		}
		at := m.Origin[i]
		weights[i] = 0
		if at < 0 {
			continue
		}
		cands, err := t.Candidates(m.Text, []int{at})
		if err != nil {
			return m, err
		}
		results, err := t.Evaluate(cands)
		if err != nil {
			return m, err
		}
		sortScored(results)
		if len(results) > 0 && results[0].Value > m.Value {
			m.Scored = results[0]
			m.weights = append([]float64(nil), m.weights...)
			m.weights[i] = 0
			return m, nil
		}
	}
}

// cross takes each word of the original as a or b has it, by a coin.
func (g Genetic) cross(t *Task, r *Rand, a, b member) (member, error) {
	x := mixWords(t.Original, a.Text, b.Text, func(int) bool { return r.IntN(2) == 0 })
	kept, err := t.Filter([]*Text{x}, a.Text)
	if err != nil {
		return a, err
	}
	if len(kept) == 0 {
		return a, nil
	}
	results, err := t.Evaluate(kept)
	if err != nil || len(results) == 0 {
		return a, err
	}
	w := make([]float64, len(a.weights))
	for i := range w {
		w[i] = min(a.weights[i], b.weights[i])
		if at := x.Origin[i]; at >= 0 && !x.Modified[at] {
			w[i] = max(a.weights[i], b.weights[i])
		}
	}
	return member{results[0], w}, nil
}

// mixWords starts from a and takes over from b the words of the original that take says. Where a word was split or removed in either, a stays.
func mixWords(original, a, b *Text, take func(i int) bool) *Text {
	x := a
	for i := range original.Len() {
		use := take(i)
		ia, ib := x.Origin[i], b.Origin[i]
		if !use || ia < 0 || ib < 0 || x.Word(ia) == b.Word(ib) || a.Len() != original.Len() || b.Len() != original.Len() {
			continue
		}
		y := x.Replace(ia, b.Word(ib))
		if y.Len() == x.Len() {
			y.Modified[ia] = b.Modified[ib]
			x = y
		}
	}
	return x
}

// Swarm is particle swarm optimisation over word substitutions (Zang et al. 2020).
type Swarm struct{ Size, Rounds int }

func (s Swarm) Name() string { return "particle-swarm" }

func (s Swarm) Run(t *Task) (Scored, error) {
	const (
		vMax           = 1.0
		omega1, omega2 = 0.8, 0.2
		pull1, pull2   = 0.8, 0.2
	)
	size, rounds := max(2, s.Size), max(1, s.Rounds)
	r := t.Rand()
	starts, chance, err := s.neighbours(t, t.base)
	if err != nil {
		return t.base, err
	}
	at := make([]Scored, size)
	for k := range at {
		at[k] = t.base
		if i := r.Weighted(chance); i >= 0 {
			at[k] = starts[i]
		}
	}
	best := bestOf(at, t.base)
	if best.Won || t.Over() {
		return best, nil
	}
	own := append([]Scored(nil), at...)
	n := t.Original.Len()
	speed := make([][]float64, size)
	for k := range speed {
		v := (2*r.Float64() - 1) * vMax
		speed[k] = make([]float64, n)
		for i := range n {
			speed[k][i] = v
		}
	}
	for round := range rounds {
		done := float64(round) / float64(rounds)
		omega := (omega1-omega2)*(1-done) + omega2
		p1, p2 := pull1-done*(pull1-pull2), pull2+done*(pull1-pull2)
		moved := make([]*Text, size)
		for k := range at {
			x := at[k].Text
			for i := range n {
				speed[k][i] = omega*speed[k][i] + (1-omega)*(differs(x, own[k].Text, i)+differs(x, best.Text, i))*vMax
			}
			turn := func(from *Text) func(int) bool {
				return func(i int) bool { return r.Float64() < 1/(1+math.Exp(-speed[k][i])) }
			}
			for _, pull := range []struct {
				p  float64
				to *Text
			}{{p1, own[k].Text}, {p2, best.Text}} {
				if r.Float64() < pull.p {
					y := mixWords(t.Original, x, pull.to, turn(x))
					kept, err := t.Filter([]*Text{y}, x)
					if err != nil {
						return best, err
					}
					if len(kept) > 0 {
						x = y
					}
				}
			}
			moved[k] = x
		}
		results, err := t.Evaluate(moved)
		if err != nil {
			return best, err
		}
		copy(at, results)
		if best = bestOf(at, best); best.Won || t.Over() {
			return best, nil
		}
		for k := range at {
			if r.Float64() < 1-2*float64(Changed(t.Original, at[k].Text))/float64(max(1, n)) {
				near, chance, err := s.neighbours(t, at[k])
				if err != nil {
					return best, err
				}
				if i := r.Weighted(chance); i >= 0 {
					at[k] = near[i]
				}
			}
			if at[k].Value > own[k].Value {
				own[k] = at[k]
			}
			if t.Over() {
				break
			}
		}
		if best = bestOf(at, best); best.Won || t.Over() {
			return best, nil
		}
	}
	return best, nil
}

func bestOf(list []Scored, best Scored) Scored {
	for _, s := range list {
		if s.Won && !best.Won || s.Won == best.Won && s.Value > best.Value {
			best = s
		}
	}
	return best
}

// differs is -1 where word i of the original is the same in both, else 1.
func differs(a, b *Text, i int) float64 {
	ia, ib := a.Origin[i], b.Origin[i]
	if ia >= 0 && ib >= 0 && a.Word(ia) == b.Word(ib) {
		return -1
	}
	return 1
}

// neighbours gives, per word of x, the best text with that word changed and the gain it brings, 0 where there is none.
func (s Swarm) neighbours(t *Task, x Scored) ([]Scored, []float64, error) {
	out, gain := make([]Scored, x.Len()), make([]float64, x.Len())
	var all []*Text
	var of []int
	for i := range x.Len() {
		out[i] = x
		cands, err := t.Candidates(x.Text, []int{i})
		if err != nil {
			return nil, nil, err
		}
		for _, c := range cands {
			all, of = append(all, c), append(of, i)
		}
	}
	results, err := t.Evaluate(all)
	if err != nil {
		return nil, nil, err
	}
	for k, res := range results {
		if d := float64(res.Value - x.Value); d > gain[of[k]] {
			out[of[k]], gain[of[k]] = res, d
		}
	}
	return out, gain, nil
}

// Escalate runs its stages one after another, each from the untouched text, until one wins or the budget ends.
type Escalate struct{ Stages []Recipe }

func (e Escalate) Name() string { return "escalate" }

func (e Escalate) Run(t *Task) (Scored, error) {
	recipe, best := t.recipe, t.base
	defer func() { t.recipe = recipe }()
	for i := range e.Stages {
		if t.Over() {
			break
		}
		t.recipe = &e.Stages[i]
		got, err := t.recipe.Search.Run(t)
		if err != nil {
			return best, err
		}
		if got.Won || got.Value > best.Value {
			best = got
		}
		if best.Won {
			t.used = t.recipe.Name
			break
		}
	}
	return best, nil
}
