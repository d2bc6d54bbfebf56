package generate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"promptgen/internal/decode"
	"promptgen/internal/kernel"
	"promptgen/internal/testkit"
)

// A prompt gives the same logits to the bit however it is cut into segments,
// and whether others read beside it.
func TestCutsChangeNothing(t *testing.T) {
	const vocab, nCtx = 61, 300
	p := randomModel(21, vocab, nCtx)
	for _, d := range []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q8_0, kernel.Q4_0} {
		f := newTestForwarder(t, newCPU(t, 2), p, d)
		rapid.Check(t, func(t *rapid.T) {
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			prompt := ids(r, vocab, 4+r.IntN(nCtx-4))
			var whole, cut, beside cache
			want := slices.Clone(f.run([]segment{{&whole, prompt}}))
			var got []float32
			for at := 0; at < len(prompt); {
				n := min(1+r.IntN(len(prompt)), len(prompt)-at)
				f.pool.release(&beside)
				segs := []segment{{&cut, prompt[at : at+n]}}
				if r.IntN(2) == 0 {
					segs = append(segs, segment{&beside, ids(r, vocab, 1+r.IntN(9))})
				}
				got = f.run(segs)[:vocab]
				at += n
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d tokens: logits differ by %g", len(prompt), testkit.MaxDiff(got, want))
			}
			for _, c := range []*cache{&whole, &cut, &beside} {
				f.pool.release(c)
			}
		})
	}
}

// The pages of forks hold what they held when they were forked, whatever the
// other readers write.
func TestForksAreIndependent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pool{layout: decode.Cache{Layers: 1, Heads: 1, HeadDim: 1}}
		type text struct {
			cache
			rows []float32
		}
		texts := []*text{{}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			x := texts[rapid.IntRange(0, len(texts)-1).Draw(t, "text")]
			switch rapid.IntRange(0, 3).Draw(t, "action") {
			case 0:
				n := rapid.IntRange(0, x.n).Draw(t, "n")
				texts = append(texts, &text{p.fork(&x.cache, n), slices.Clone(x.rows[:n])})
			case 1:
				p.release(&x.cache)
				x.rows = nil
			default:
				rows := rapid.IntRange(1, 2*pageRows).Draw(t, "rows")
				p.grow(&x.cache, rows)
				for range rows {
					v := rapid.Float32Range(0, 1).Draw(t, "v")
					x.pages[x.n/pageRows].data[x.n%pageRows] = math.Float32bits(v)
					x.rows = append(x.rows, v)
					x.n++
				}
			}
		}
		for i, x := range texts {
			for at, want := range x.rows {
				if got := math.Float32frombits(x.pages[at/pageRows].data[at%pageRows]); got != want {
					t.Fatalf("text %d, row %d: %g, want %g", i, at, got, want)
				}
			}
			p.release(&x.cache)
		}
		if len(p.free) != p.made {
			t.Fatalf("%d of %d pages came back", len(p.free), p.made)
		}
	})
}

// A prompt typed letter by letter reads only what is new, its texts are those
// of an engine that remembers nothing, and what is kept stays within the limit.
func TestTypingOn(t *testing.T) {
	const vocab, nCtx = 80, 64
	p := randomModel(22, vocab, nCtx)
	for _, dt := range []kernel.DType{kernel.FP32, kernel.BF16, kernel.Q4_0} {
		typing := newEngine(t, p, newCPU(t, 2), EngineOptions{DType: dt})
		forgetful := newEngine(t, p, newCPU(t, 2), EngineOptions{DType: dt, PrefixTokens: -1})
		r := rand.New(rand.NewPCG(3, 3))
		prompt := ids(r, vocab, 10)
		for step := range 40 {
			req := Request{PromptIDs: prompt, Length: 6, Samples: 2, Temperature: 1, Seed: uint64(step), TopLogProbs: 2}
			got, err := typing.Generate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			want, err := forgetful.Generate(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got.Samples {
				if g, w := got.Samples[i], want.Samples[i]; !slices.Equal(g.Tokens, w.Tokens) || !slices.Equal(g.LogProbs, w.LogProbs) {
					t.Fatalf("%v, step %d: %v %v, want %v %v", dt, step, g.Tokens, g.LogProbs, w.Tokens, w.LogProbs)
				}
			}
			switch n := r.IntN(8); {
			case n == 0: // a new prompt
				prompt = ids(r, vocab, 5+r.IntN(nCtx))
			case n == 1: // the same again
			case n < 4: // something is deleted
				prompt = prompt[:max(1, len(prompt)-1-r.IntN(5))]
			default:
				prompt = slices.Concat(prompt, ids(r, vocab, 1+r.IntN(4)))
			}
		}
		a, b := typing.Stats(), forgetful.Stats()
		if a.PrefixHits < 10 || a.Read+a.PrefixTokens != b.Read || b.PrefixHits != 0 {
			t.Errorf("%v: %+v, without a memory %+v", dt, a, b)
		}
	}
}

// The last used prompts stay, and their pages stay within the limit.
func TestPrefixesAreBounded(t *testing.T) {
	p := &pool{layout: decode.Cache{Layers: 1, Heads: 1, HeadDim: 1}}
	kept := prefixes{pool: p, limit: 4}
	read := func(first int32, n int) []int32 {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = first
		}
		c := kept.begin(ids)
		p.grow(&c, n-c.n)
		c.n = n
		kept.keep(ids, &c)
		p.release(&c)
		return ids
	}
	a := read(1, pageRows)
	b := read(2, 2*pageRows)
	read(1, pageRows)
	read(3, 2*pageRows) // b goes, a was used since
	read(4, 5*pageRows) // more than there is room for: not kept
	for _, c := range []struct {
		ids  []int32
		want int
	}{{a, pageRows - 1}, {b, 0}, {[]int32{3, 3, 3, 3, 3, 9}, 5}, {[]int32{3, 3, 3, 9, 9, 9}, 0}} {
		got := kept.begin(c.ids)
		if got.n != c.want {
			t.Errorf("%v: %d tokens are known, want %d", c.ids[:2], got.n, c.want)
		}
		p.release(&got)
	}
	kept.clear()
	if kept.pages != 0 || len(p.free) != p.made {
		t.Errorf("%d pages are counted, %d of %d came back", kept.pages, len(p.free), p.made)
	}
}
