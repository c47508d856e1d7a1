package attack

import "context"

// counted is the victim as a perturber sees it: cached, and counted against the budget of the example that the question is for.
type counted struct {
	run   *run
	tasks []*Task
}

// newCounted gives the wrapper exactly the optional capabilities that the run has.
func newCounted(r *run, tasks []*Task) Victim {
	c := &counted{run: r, tasks: tasks}
	_, grad := r.victim.(GradientVictim)
	embed := r.encoder() != nil && r.words() != nil
	mask := r.masker() != nil
	_, tokens := r.victim.(TokenVictim)
	key := 0
	for i, has := range []bool{grad, embed, mask, tokens} {
		if has {
			key |= 1 << i
		}
	}
	g, e, m, t := countedGradient{c}, countedEmbed{c}, countedMask{c}, countedTokens{c}
	switch key {
	case 0:
		return c
	case 1:
		return g
	case 2:
		return e
	case 3:
		return struct {
			*counted
			gradientOnly
			embedOnly
		}{c, g, e}
	case 4:
		return m
	case 5:
		return struct {
			*counted
			gradientOnly
			maskOnly
		}{c, g, m}
	case 6:
		return struct {
			*counted
			embedOnly
			maskOnly
		}{c, e, m}
	case 7:
		return struct {
			*counted
			gradientOnly
			embedOnly
			maskOnly
		}{c, g, e, m}
	case 8:
		return t
	case 9:
		return struct {
			*counted
			gradientOnly
			tokensOnly
		}{c, g, t}
	case 10:
		return struct {
			*counted
			embedOnly
			tokensOnly
		}{c, e, t}
	case 11:
		return struct {
			*counted
			gradientOnly
			embedOnly
			tokensOnly
		}{c, g, e, t}
	case 12:
		return struct {
			*counted
			maskOnly
			tokensOnly
		}{c, m, t}
	case 13:
		return struct {
			*counted
			gradientOnly
			maskOnly
			tokensOnly
		}{c, g, m, t}
	case 14:
		return struct {
			*counted
			embedOnly
			maskOnly
			tokensOnly
		}{c, e, m, t}
	}
	return struct {
		*counted
		gradientOnly
		embedOnly
		maskOnly
		tokensOnly
	}{c, g, e, m, t}
}

type gradientOnly interface {
	SpanImportance(ctx context.Context, text string, label int, spans []Span) ([]float32, error)
}
type embedOnly interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
	Nearest(ctx context.Context, word string, n int) ([]string, error)
}
type maskOnly interface {
	Fill(ctx context.Context, text string, at Span, n int) ([]Candidate, error)
}
type tokensOnly interface {
	Tokens(text string) ([]Span, []string)
}

func (c *counted) Labels() []string { return c.run.labels }

func (c *counted) Scores(ctx context.Context, texts []string) ([][]float32, error) {
	at, _ := ctx.Value(taskKey{}).(int)
	if at < 0 || at >= len(c.tasks) {
		at = 0
	}
	t := c.tasks[at]
	c.run.mu.Lock()
	if t.budget > 0 && t.queries+len(texts) > t.budget {
		c.run.mu.Unlock()
		return nil, ErrBudget
	}
	t.queries += len(texts)
	t.over = t.budget > 0 && t.queries >= t.budget
	c.run.mu.Unlock()
	return c.run.scores(ctx, texts)
}

type countedGradient struct{ *counted }

func (c countedGradient) SpanImportance(ctx context.Context, text string, label int, spans []Span) ([]float32, error) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	return c.run.victim.(GradientVictim).SpanImportance(ctx, text, label, spans)
}

type countedEmbed struct{ *counted }

func (c countedEmbed) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	return c.run.encoder().Embed(ctx, texts)
}

func (c countedEmbed) Nearest(ctx context.Context, word string, n int) ([]string, error) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	return c.run.words().Nearest(ctx, word, n)
}

type countedMask struct{ *counted }

func (c countedMask) Fill(ctx context.Context, text string, at Span, n int) ([]Candidate, error) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	return c.run.masker().Fill(ctx, text, at, n)
}

type countedTokens struct{ *counted }

func (c countedTokens) Tokens(text string) ([]Span, []string) {
	c.run.mu.Lock()
	defer c.run.mu.Unlock()
	return c.run.victim.(TokenVictim).Tokens(text)
}
