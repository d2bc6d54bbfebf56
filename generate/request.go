package generate

import (
	"math"
	"strings"
	"time"

	"promptgen/internal/fault"
)

// Bounds of a request, beyond which it is a mistake and not a wish.
const (
	MaxSamples  = 10_000
	MaxLength   = 100_000_000
	MaxBeams    = 64
	maxLogProbs = 100

	minRepetitionPenalty = 0.01 // but for 0, which is none
)

// Request says what to write on from. The zero value of each field that is not
// said otherwise means "off".
type Request struct {
	Prompt    string  // text; each answer begins with it exactly as it stands here
	PromptIDs []int32 // tokens instead of a text; used when not nil

	Length    int // tokens to write at most
	MinLength int // tokens before which the end of text is not drawn
	Samples   int // 0: 1

	Greedy            bool    // always the most probable token
	Temperature       float64 // 0: greedy
	TopK              int     // only the k most probable tokens, ties kept
	TopP              float64 // only the nucleus of this probability; 1: off
	MinP              float64 // only tokens of at least this share of the best one's probability
	TypicalP          float64 // only the most typical tokens of this probability together; 1: off
	RepetitionPenalty float64 // > 1 makes tokens of prompt and text rarer; 1: off
	PresencePenalty   float64 // subtracted from the logits of tokens already written
	FrequencyPenalty  float64 // the same, for each time they were
	NoRepeatNGram     int     // no sequence of this many tokens twice

	Ban []string // words that are never written

	// Beams > 0 searches for the most probable texts with this many beams
	// instead of drawing; Samples of them, at most Beams, are the answer. A
	// text's score is divided by its length to the power of LengthPenalty.
	Beams         int
	LengthPenalty float64

	Stop []string // the text ends before the first of these, which is not shown
	Seed uint64   // the same seed, the same text

	AllowDuplicates bool // otherwise a sample equal to an earlier one is drawn again, up to three times, unless it was streamed
	TopLogProbs     int  // list this many of the most probable tokens at each step

	// OnToken, if set, is called for every token by the goroutine that called
	// Generate, with the text that has become certain.
	OnToken func(Piece)
}

// Piece is news of one sample. The texts of its pieces join to its
// Continuation.
type Piece struct {
	Sample int
	Text   string // what is new; may be empty, may be of several tokens
	Tokens int    // tokens written so far
	Finish Finish // not empty in the sample's last piece

	Token TokenProb   // the token drawn; the end-of-text token too
	Top   []TokenProb // with TopLogProbs: the most probable tokens at this step
}

// Finish says why a sample ended.
type Finish string

// The reasons.
const (
	FinishLength Finish = "length"
	FinishStop   Finish = "stop" // a stop string
	FinishEOS    Finish = "eos"  // the end-of-text token
)

// Response is the answer to a Request.
type Response struct {
	Samples      []Sample
	PromptTokens int           // with BOS
	Seed         uint64        // the request's
	FirstToken   time.Duration // from the call to the first token
	Total        time.Duration
}

// Sample is one text.
type Sample struct {
	Text         string // Prompt and Continuation
	Continuation string
	Tokens       []int32 // written, without the end-of-text token
	Finish       Finish
	LogProb      float64       // sum of LogProbs, and of the end-of-text token's where it ended so
	LogProbs     []float64     // of each of Tokens under the model, before temperature and filters
	Top          [][]TokenProb // with TopLogProbs: the most probable tokens at each step
}

// Defaults is the original's request: 5 samples of 50 tokens, temperature 1,
// top-k 30.
func Defaults() Request {
	return Request{Length: 50, Samples: 5, Temperature: 1, TopK: 30, RepetitionPenalty: 1, LengthPenalty: 1}
}

// PromptError says why a model cannot write on from a prompt (exit code 2).
type PromptError struct{ err error }

// Error says what is wrong with the prompt.
func (e *PromptError) Error() string { return e.err.Error() }

// Unwrap has the exit code.
func (e *PromptError) Unwrap() error { return e.err }

func badPrompt(format string, args ...any) error {
	return &PromptError{fault.Usage(format, args...)}
}

func (r *Request) greedy() bool { return r.Greedy || r.Temperature == 0 }

// Validate lists every fault of the request at once (exit code 2).
func (r *Request) Validate() error {
	var l fault.List
	whole := func(name string, v, limit int) {
		if v < 0 || v > limit {
			l.Addf("%s must be between 0 and %d, not %d", name, limit, v)
		}
	}
	real := func(name string, v, lo, hi float64) {
		if !(v >= lo && v <= hi) {
			l.Addf("%s must be between %g and %g, not %g", name, lo, hi, v)
		}
	}
	whole("length", r.Length, MaxLength)
	whole("min_length", r.MinLength, MaxLength)
	whole("samples", r.Samples, MaxSamples)
	whole("top_k", r.TopK, math.MaxInt32)
	whole("no_repeat_ngram", r.NoRepeatNGram, math.MaxInt32)
	whole("logprobs", r.TopLogProbs, maxLogProbs)
	real("temperature", r.Temperature, 0, 1000)
	if r.Temperature > 0 && r.Temperature < 1e-4 {
		l.Addf("temperature %g is too small to divide by: use 0, the most probable token always", r.Temperature)
	}
	real("top_p", r.TopP, 0, 1)
	real("min_p", r.MinP, 0, 1)
	real("typical_p", r.TypicalP, 0, 1)
	real("repetition_penalty", r.RepetitionPenalty, 0, 1000)
	if r.RepetitionPenalty > 0 && r.RepetitionPenalty < minRepetitionPenalty {
		l.Addf("repetition_penalty %g is too small to divide by: use %g or more; 1 is none", r.RepetitionPenalty, minRepetitionPenalty)
	}
	real("presence_penalty", r.PresencePenalty, -100, 100)
	real("frequency_penalty", r.FrequencyPenalty, -100, 100)
	whole("beams", r.Beams, MaxBeams)
	real("length_penalty", r.LengthPenalty, -10, 10)
	if r.Beams > 0 && r.Samples > r.Beams {
		l.Addf("%d beams cannot give %d samples: ask for as many beams", r.Beams, r.Samples)
	}
	if r.Beams > 0 && r.OnToken != nil {
		l.Addf("a beam search knows its texts only at the end: they cannot be streamed")
	}
	for _, w := range r.Ban {
		if strings.TrimSpace(w) == "" {
			l.Addf("a banned word must not be blank")
		}
	}
	for _, s := range r.Stop {
		if s == "" {
			l.Addf("a stop string must not be empty")
		}
	}
	return l.Err("request")
}
