package generate

import (
	"errors"
	"fmt"
	"strings"

	"github.com/temper-ml/temper/core/chat"
	"github.com/temper-ml/temper/core/token"
)

// Dialogue encodes a talk for training: its ids as the chat template writes them, and for each token the one that follows if an assistant
// said it, its end of turn included, otherwise −1. At most limit tokens are kept (0: all).
func (d *Decoder) Dialogue(turns []chat.Message, limit int) (ids, targets []int32, err error) {
	type span struct{ lo, hi int }
	var said []span
	for i, m := range turns {
		if m.Role != "assistant" {
			continue
		}
		before, err := d.Render(chat.Messages(turns[:i]...), nil, nil)
		if err != nil {
			return nil, nil, err
		}
		after, err := d.render(turns[:i+1])
		if err != nil {
			return nil, nil, err
		}
		if !strings.HasPrefix(after, before) {
			return nil, nil, fmt.Errorf("message %d: the chat template writes an answer differently from where it asks for one", i+1)
		}
		hi := len(after)
		if d.Plain && i+1 < len(turns) { // the sign that ends an answer of a plain talk is the user's next line
			hi += len("User:")
		}
		said = append(said, span{len(before), hi})
	}
	if said == nil {
		return nil, nil, errors.New("no message is the assistant's")
	}
	text, err := d.render(turns)
	if err != nil {
		return nil, nil, err
	}
	e, err := d.Tokenizer.Encode(text, token.Options{NoSpecial: true, NoLimits: true, SpecialAsText: d.Plain})
	if err != nil {
		return nil, nil, err
	}
	if b := d.BOS(); b >= 0 && d.Plain {
		ids, targets = append(ids, b), append(targets, -1)
	}
	at := 0
	for i, id := range e.IDs {
		from := e.Offsets[i].Start
		for at < len(said) && from >= said[at].hi {
			at++
		}
		if len(ids) > 0 && at < len(said) && from >= said[at].lo {
			targets[len(ids)-1] = id
		}
		ids, targets = append(ids, id), append(targets, -1)
	}
	if d.Plain && len(d.End) > 0 && turns[len(turns)-1].Role == "assistant" {
		targets[len(ids)-1] = d.End[0]
		ids, targets = append(ids, d.End[0]), append(targets, -1)
	}
	if limit > 0 && len(ids) > limit {
		ids, targets = ids[:limit], targets[:limit]
	}
	return ids, targets, nil
}

// render writes a talk up to its last message's end.
func (d *Decoder) render(turns []chat.Message) (string, error) {
	return d.Template.Render(chat.Input{Messages: chat.Messages(turns...), Tokens: d.Tokens})
}
