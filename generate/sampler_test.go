package generate

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"promptgen/internal/fault"
	"promptgen/tokenizer"
)

// The draw follows the filtered distribution: chi-square over 100,000 draws.
func TestDrawChiSquare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 200)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	s := newSampler(newCPU(t, 1), len(logits))
	for _, req := range []Request{
		{Temperature: 1}, {Temperature: 0.7, TopK: 10}, {Temperature: 1.3, TopP: 0.8}, {Temperature: 1, TopP: 0.2},
		{Temperature: 1, TopK: 20, TopP: 0.9, MinP: 0.1}, {Temperature: 1, TypicalP: 0.5}, {Temperature: 1, MinP: 0.05},
	} {
		counts, rng := make([]int, len(logits)), newStream(5, draft{})
		h := newHistory(nil, &req)
		for range n {
			tp, _, err := s.draw(logits, &req, &rules{eos: -1}, &h, rng)
			if err != nil {
				t.Fatal(err)
			}
			counts[tp.Token]++
		}
		kept := refKeep(logits, limits{req.Temperature, req.TopK, req.TopP, req.MinP, req.TypicalP})
		total := 0.0
		for _, c := range kept {
			total += math.Exp(float64(c.logit))
		}
		chi := 0.0
		for _, c := range kept {
			want := float64(n) * math.Exp(float64(c.logit)) / total
			d := float64(counts[c.id]) - want
			chi += d * d / want
			counts[c.id] = 0
		}
		for id, c := range counts {
			if c > 0 {
				t.Errorf("%+v: drew the filtered token %d", req, id)
			}
		}
		// mean df, variance 2 df: five standard deviations
		if df := float64(len(kept) - 1); chi > df+5*math.Sqrt(2*df) {
			t.Errorf("%+v: chi-square %.1f with %g degrees of freedom", req, chi, df)
		}
	}
}

// The selection equals the plain one that sorts everything, in every
// combination of limits, with ties and with tokens that are ruled out.
func TestKeepEqualsSorting(t *testing.T) {
	cpu := newCPU(t, 1)
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		n := 1 + r.IntN(1500)
		l := limits{temperature: []float64{1, 0.7, 1.9, 0.01, 40}[r.IntN(5)]}
		if r.IntN(2) == 0 {
			l.topK = 1 + r.IntN(min(n+2, 200))
		}
		if r.IntN(2) == 0 {
			l.topP = r.Float64()
		}
		if r.IntN(3) == 0 {
			l.minP = r.Float64() / 4
		}
		if r.IntN(3) == 0 {
			l.typicalP = r.Float64()
		}
		logits := make([]float32, n)
		width, coarse := 4*r.Float64(), r.IntN(2) == 0
		for i := range logits {
			logits[i] = float32(r.NormFloat64() * width)
			if coarse {
				logits[i] = float32(math.Round(float64(logits[i])*8)) / 8
			}
			if i > 0 && r.IntN(20) == 0 {
				logits[i] = float32(math.Inf(-1))
			}
		}
		s := newSampler(cpu, n)
		got := filtered(s, logits, l)
		want := refKeep(logits, l)
		kept := 0
		for _, x := range got {
			if !math.IsInf(float64(x), -1) {
				kept++
			}
		}
		// A sum that is within rounding of the limit may go either way, by the
		// tokens that are equally probable.
		exact := l.topP == 0 && l.typicalP == 0 && l.minP == 0
		if d := kept - len(want); d != 0 && (exact || l.typicalP == 0 && (d < -1 || d > 1)) {
			t.Fatalf("%+v of %d: kept %d, want %d", l, n, kept, len(want))
		}
		if kept == len(want) {
			for _, c := range want {
				if got[c.id] != c.logit {
					t.Fatalf("%+v of %d: token %d has %g, want %g", l, n, c.id, got[c.id], c.logit)
				}
			}
		}
	})
}

// Typical sampling by hand: with probabilities 1/2, 1/4, 1/8, 1/8 the entropy
// is 1.75 bits, from which the tokens are 0.75, 0.25, 1.25 and 1.25 away.
func TestTypicalByHand(t *testing.T) {
	logits := []float32{0, float32(math.Log(0.5)), float32(math.Log(0.25)), float32(math.Log(0.25))}
	s := newSampler(newCPU(t, 1), len(logits))
	for _, c := range []struct {
		p    float64
		want []int32
	}{{0.2, []int32{1}}, {0.3, []int32{0, 1}}, {0.74, []int32{0, 1}}, {0.8, []int32{0, 1, 2, 3}}, {1, []int32{0, 1, 2, 3}}} {
		var kept []int32
		for id, x := range filtered(s, logits, limits{temperature: 1, typicalP: c.p}) {
			if !math.IsInf(float64(x), -1) {
				kept = append(kept, int32(id))
			}
		}
		if !slices.Equal(kept, c.want) {
			t.Errorf("typical_p %g keeps %v, want %v", c.p, kept, c.want)
		}
	}
}

// Where the division by the temperature makes equal what was not, all are kept.
func TestTiesAfterDivision(t *testing.T) {
	a := float32(1.5)
	for a/3 != math.Nextafter32(a, 0)/3 {
		a = math.Nextafter32(a, 2)
	}
	logits := []float32{0, math.Nextafter32(a, 0), a, -1}
	got := filtered(newSampler(newCPU(t, 1), 4), logits, limits{temperature: 3, topK: 1})
	if math.IsInf(float64(got[1]), -1) || math.IsInf(float64(got[2]), -1) || !math.IsInf(float64(got[0]), -1) {
		t.Errorf("kept %v", got)
	}
}

func TestPenalties(t *testing.T) {
	raw := []float32{2, -2, 1, 0.5, 3}
	inf := float32(math.Inf(-1))
	for _, c := range []struct {
		name    string
		r       Request
		context []int32
		n       int
		want    []float32
	}{
		{"repetition counts a token once, prompt included", Request{RepetitionPenalty: 2}, []int32{0, 0, 1}, 1, []float32{1, -4, 1, 0.5, inf}},
		{"presence and frequency count what was written", Request{PresencePenalty: 1, FrequencyPenalty: 0.5}, []int32{3, 0, 0, 2}, 3, []float32{0, -2, -0.5, 0.5, inf}},
		{"no bigram twice", Request{NoRepeatNGram: 2}, []int32{0, 1, 2, 0, 3, 0}, 0, []float32{2, inf, 1, inf, inf}},
		{"no token twice", Request{NoRepeatNGram: 1}, []int32{0, 2}, 0, []float32{inf, -2, inf, 0.5, inf}},
		{"no end before the minimum", Request{MinLength: 2}, []int32{2, 0}, 1, []float32{2, inf, 1, 0.5, inf}},
		{"an end after it", Request{MinLength: 1}, []int32{2, 0}, 1, []float32{2, -2, 1, 0.5, inf}},
	} {
		s := newSampler(newCPU(t, 1), len(raw))
		at := len(c.context) - c.n
		h := newHistory(c.context[:at], &c.r)
		for _, id := range c.context[at:] {
			h.push(id)
		}
		copy(s.logits, raw)
		s.process(&c.r, newRules(nil, []int32{4}, 1, &c.r), &h)
		if !slices.Equal(s.logits, c.want) {
			t.Errorf("%s: %v, want %v", c.name, s.logits, c.want)
		}
	}
}

// The last token of a banned sequence is forbidden behind the others, and one with
// [UNK], which stands for any text, forbids nothing.
func TestBannedSequences(t *testing.T) {
	tok := wordTokenizer(t, 20)
	rs := newRules(tok, nil, -1, &Request{})
	for _, seq := range [][]int32{{3}, {1, 0}, {2, 0, 2}, {0, tok.Vocab().Special().UNK}, {}} {
		rs.banTokens(seq)
	}
	inf := float32(math.Inf(-1))
	logits := []float32{2, -2, 1, 0.5, 3}
	rs.forbid(logits, []int32{2, 0}, nil)
	if want := []float32{2, -2, inf, inf, 3}; !slices.Equal(logits, want) {
		t.Errorf("%v, want %v", logits, want)
	}
}

// A banned word never appears, however tokens might make it up, and what is
// left of it may.
func TestBannedWords(t *testing.T) {
	v, err := tokenizer.NewVocab([]string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "高", "血", "压", "高血", "血压", "高血压", "##压", "高血压病", "art", "party", "，"})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.New(v, tokenizer.Options{Level: tokenizer.LevelChar, LowerCase: true})
	if err != nil {
		t.Fatal(err)
	}
	e := textEngine(t, randomModel(31, v.Len(), 64), tok, newCPU(t, 0), EngineOptions{})
	words := []string{"高血压", "art", "，，", "\u200b"} // of the last, no token is left
	seen := map[string]bool{}
	for seed := range uint64(30) {
		resp, err := e.Generate(t.Context(), Request{Prompt: "高血", Length: 40, MinLength: 40, Samples: 2, Temperature: 3, Seed: seed, Ban: words})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range resp.Samples {
			for _, w := range []string{"高血压", "，，"} {
				if strings.Contains(s.Text, w) {
					t.Fatalf("%q is in %q", w, s.Text)
				}
			}
			for _, id := range s.Tokens {
				seen[v.Token(id)] = true
			}
		}
	}
	for token, want := range map[string]bool{"art": false, "高血压": false, "高血压病": false, "party": true, "血压": true, "压": true, "高血": true, "，": true} {
		if seen[token] != want {
			t.Errorf("%q drawn: %v", token, seen[token])
		}
	}
	every := Request{Prompt: "高", Length: 3, MinLength: 3, Temperature: 1, Ban: []string{"[SEP]", "高", "血", "压", "art", "party", "，"}}
	if _, err := e.Generate(t.Context(), every); fault.Code(err) != fault.CodeUsage {
		t.Errorf("every token banned: %v", err)
	}
}

// write pushes tokens after a prompt and returns what was shown piece by piece.
func write(tok *tokenizer.Tokenizer, prompt string, stops []string, tokens ...string) (shown []string, stopped bool) {
	w := newWriter(tok, prompt, encodePrompt(tok, prompt), stops)
	for _, s := range tokens {
		id, _ := tok.Vocab().ID(s)
		text, stop := w.push(id)
		shown = append(shown, text)
		if stop {
			return shown, true
		}
	}
	text, stop := w.finish()
	return append(shown, text), stop
}

func TestSeamAndStops(t *testing.T) {
	tok := wordTokenizer(t, 100)
	for _, c := range []struct {
		prompt  string
		stops   []string
		tokens  []string
		want    string
		stopped bool
	}{
		{"hello", nil, []string{"world"}, " world", false},             // two English words
		{"Hello", nil, []string{"world"}, " world", false},             // by the token, not by the letter
		{"hello ", nil, []string{"world"}, "world", false},             // one space is enough
		{"hello", nil, []string{"##es", ",", "go"}, "es,go", false},    // a word goes on
		{"丂", nil, []string{"world"}, "world", false},                  // no space after Chinese
		{"丂", nil, []string{"[SEP]", "七", "[SEP]"}, "\n七", false},      // white space at the end goes
		{"", nil, []string{"[SEP]", "七"}, "七", false},                  // and at the beginning
		{"丂#", nil, []string{"七"}, "七", false},                         // a '#' that the prompt has
		{"丂", nil, []string{"#", "七"}, "#七", false},                    //
		{"丂", nil, []string{"##", "七"}, "七", false},                    //
		{"丂", []string{"七丄"}, []string{"丂", "七", "丄", "丅"}, "丂", true}, // across tokens
		{"丂", []string{"七丄"}, []string{"七", "丅"}, "七丅", false},         // begun, not ended
		{"丂", []string{"七丄"}, []string{"七"}, "七", false},
		{"丂", []string{"o w"}, []string{"hello", "world"}, "hell", true},
		{"丂", []string{"\n"}, []string{"七", "[SEP]", "丄"}, "七", true},
		{"丂", []string{"丅", "七"}, []string{"七", "丅"}, "", true}, // the first in the text counts
		{"七", []string{"七丄"}, []string{"丄"}, "丄", false},        // the prompt does not stop it
	} {
		shown, stopped := write(tok, c.prompt, c.stops, c.tokens...)
		if got := strings.Join(shown, ""); got != c.want || stopped != c.stopped {
			t.Errorf("%q + %q, stops %q: %q, %v; want %q, %v", c.prompt, c.tokens, c.stops, got, stopped, c.want, c.stopped)
		}
	}
}

// Whatever the pieces, no part of a stop string is shown, and without one the
// text is that of all tokens.
func TestStopsNeverShown(t *testing.T) {
	tok := wordTokenizer(t, 20)
	rapid.Check(t, func(t *rapid.T) {
		tokens := rapid.SliceOfN(rapid.SampledFrom([]string{"hello", "go", "##es", ",", "#", "[SEP]", "丂", "丁"}), 1, 20).Draw(t, "tokens")
		stops := rapid.SliceOfN(rapid.SampledFrom([]string{"o,", "丂丁丂", "es go", "\n\n", "#,"}), 0, 2).Draw(t, "stops")
		whole, _ := write(tok, "丂", nil, tokens...)
		text := strings.Join(whole, "")
		cut := len(text)
		for _, s := range stops {
			if i := strings.Index(text, s); i >= 0 {
				cut = min(cut, i)
			}
		}
		shown, stopped := write(tok, "丂", stops, tokens...)
		got := strings.Join(shown, "")
		if want := strings.TrimRight(text[:cut], whiteSpace); got != want && !(cut == len(text) && stopped) {
			t.Fatalf("%q, stops %q: %q, want %q", tokens, stops, got, want)
		}
		if cut < len(text) && !stopped {
			t.Fatalf("%q: did not stop at %q", tokens, stops)
		}
	})
}
