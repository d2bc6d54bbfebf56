package generate

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"promptgen/tokenizer"
)

// The draw follows the filtered distribution: chi-square over 100,000 draws.
func TestDrawChiSquare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 60)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	for _, req := range []Request{
		{Temperature: 1}, {Temperature: 0.7, TopK: 10}, {Temperature: 1.3, TopP: 0.8}, {Temperature: 1, TopK: 20, TopP: 0.9, MinP: 0.1},
	} {
		n := 100_000
		if testing.Short() {
			n = 20_000
		}
		expected := slices.Clone(logits)
		Filter(expected, req.Temperature, req.TopK, req.TopP)
		if req.MinP > 0 {
			top := slices.Max(expected)
			for i, x := range expected {
				if math.Exp(float64(x-top)) < req.MinP {
					expected[i] = float32(math.Inf(-1))
				}
			}
		}
		norm := logSumExp(expected)
		counts := make([]int, len(logits))
		s := newSampler(5, 0, 0)
		for range n {
			tp, _, err := s.draw(logits, &req, nil, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			counts[tp.Token]++
		}
		chi, cells := 0.0, -1
		for i, c := range counts {
			want := float64(n) * math.Exp(float64(expected[i])-norm)
			if want == 0 {
				if c > 0 {
					t.Errorf("%+v: drew the filtered token %d", req, i)
				}
				continue
			}
			chi += (float64(c) - want) * (float64(c) - want) / want
			cells++
		}
		// mean df, variance 2 df: five standard deviations
		if limit := float64(cells) + 5*math.Sqrt(2*float64(cells)); chi > limit {
			t.Errorf("%+v: chi-square %.1f with %d degrees of freedom", req, chi, cells)
		}
	}
}

// The selection equals the plain one that sorts everything.
func TestFilterEqualsSorting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		seed := rapid.Uint64().Draw(t, "seed")
		k := rapid.IntRange(0, n+2).Draw(t, "k")
		p := rapid.Float64Range(0, 1).Draw(t, "p")
		r := rand.New(rand.NewPCG(seed, 0))
		logits := make([]float32, n)
		for i := range logits {
			logits[i] = float32(r.IntN(40)) / 4 // many ties
		}
		got := slices.Clone(logits)
		Filter(got, 0.5, k, p)

		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			return int(4*logits[b]) - int(4*logits[a])
		})
		if k > 0 && k < n {
			at := k
			for at < n && logits[order[at]] == logits[order[k-1]] {
				at++
			}
			order = order[:at]
		}
		if p > 0 && p < 1 {
			total, sum := 0.0, 0.0
			for _, i := range order {
				total += math.Exp(float64(2 * (logits[i] - logits[order[0]])))
			}
			for at, i := range order {
				if sum += math.Exp(float64(2 * (logits[i] - logits[order[0]]))); sum > p*total*(1+1e-12) {
					order = order[:at+1]
					break
				}
			}
		}
		kept := 0
		for _, x := range got {
			if !math.IsInf(float64(x), -1) {
				kept++
			}
		}
		if d := kept - len(order); d < -1 || d > 1 || d != 0 && p == 0 {
			t.Fatalf("k %d, p %g: kept %d, want %d", k, p, kept, len(order))
		}
		for i := range got {
			if slices.Contains(order, i) && math.IsInf(float64(got[i]), -1) && kept >= len(order) {
				t.Fatalf("k %d, p %g: token %d is missing", k, p, i)
			}
		}
	})
}

func TestPenalties(t *testing.T) {
	raw := []float32{2, -2, 1, 0.5, 3}
	draw := func(r Request, context []int32, n int) []float32 {
		s := newSampler(0, 0, 0)
		if _, _, err := s.draw(raw, &r, context, n, []int32{4}); err != nil {
			t.Fatal(err)
		}
		return s.logits
	}
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
	} {
		if got := draw(c.r, c.context, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
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
