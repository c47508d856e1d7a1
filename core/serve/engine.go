// Package serve answers the OpenAI-compatible routes over an Engine: chat and text completions (streamed or not), embeddings, models,
// and classification; with API keys, limits, deadlines, metrics and a graceful end. It holds no model and logs no text.
package serve

import (
	"context"
	"errors"

	"github.com/temper-ml/temper/core/sample"
)

// Engine does the work. All methods are called concurrently; an engine batches what arrives together.
type Engine interface {
	// Models lists what can be named in a request.
	Models() []Model
	// Prompt renders a dialogue with the model's chat template, ready for the assistant's turn.
	Prompt(model string, messages []Message, tools any) (string, error)
	// Generate continues a prompt and calls emit for each piece of text in order; emit's error ends the generation.
	Generate(ctx context.Context, req Generation, emit func(Piece) error) (Summary, error)
	// Embed returns one normalised vector per text and the number of tokens read.
	Embed(ctx context.Context, model string, texts []string) ([][]float32, int, error)
	// Classify returns class probabilities; labels, when given, are classes to choose from without training (zero-shot).
	Classify(ctx context.Context, model string, texts, labels []string) ([]Class, int, error)
}

// Kinds of work that a model can do.
const (
	KindGenerate = "generate"
	KindEmbed    = "embed"
	KindClassify = "classify"
)

// Model is an entry of /v1/models. Created is a Unix time in seconds.
type Model struct {
	ID      string
	Created int64
	Context int // tokens
	Kinds   []string
}

// Message is a turn of a dialogue.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
	Name    string `json:"name,omitempty"`
	// ToolCalls and ToolCallID are passed to the template as they came.
	ToolCalls  any    `json:"tool_calls,omitempty"`
	ToolCallID string `json:"tool_call_id,omitempty"`
}

// Generation is one request for text.
type Generation struct {
	Model     string
	Prompt    string
	Raw       bool // the prompt is a rendered template: special tokens in it are recognised and no beginning token is added
	MaxTokens int  // 0: up to the context's end
	Sample    sample.Params
	// DRYBreakers are texts that end a repetition; nil: the usual ones.
	DRYBreakers []string
	Stop        []string
	LogProbs    int // -1: none; otherwise the number of alternatives
	// PromptLogProbs asks for those of the prompt's tokens too, in pieces of their own before the text.
	PromptLogProbs bool
	// Schema (JSON schema) or Grammar (GBNF) restricts the output; JSON asks for any JSON value.
	Schema  []byte
	Grammar string
	JSON    bool
}

// Piece is a bit of generated text, whole runes only.
type Piece struct {
	Text     string
	LogProbs []TokenLogProb
	// Prompt is true where LogProbs are the prompt's.
	Prompt bool
}

// TokenLogProb is a token with its natural log-probability and the likeliest alternatives. First marks a text's first token, which has neither.
type TokenLogProb struct {
	First   bool
	Token   string
	Bytes   []byte
	LogProb float64
	Top     []TokenLogProb
}

// Summary ends a generation.
type Summary struct {
	PromptTokens, CachedTokens, Tokens int
	Finish                             string // "stop" or "length"
}

// Class is a verdict: probabilities by label.
type Class struct {
	Label  string             `json:"label"`
	Score  float64            `json:"score"`
	Scores map[string]float64 `json:"scores"`
}

// ErrBadRequest marks errors that the caller can mend; their text is sent back. ErrNoModel marks an unknown model, ErrBusy a full queue.
var (
	ErrBadRequest = errors.New("bad request")
	ErrNoModel    = errors.New("no such model")
	ErrBusy       = errors.New("too many requests are waiting")
)
