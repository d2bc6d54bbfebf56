package reshape_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/reshape"
)

func small() model.Config {
	return model.Config{VocabSize: 7, NPositions: 5, NCtx: 5, NEmbd: 6, NHead: 2, NLayer: 2, NInner: 10,
		LayerNormEpsilon: 1e-5, InitializerRange: 0.02}
}

// random are parameters of which none is zero.
func random(c model.Config, untied bool, seed uint64) *model.Params {
	c.InitializerRange = 1
	p := model.NewParams(c, untied)
	p.Init(seed)
	for i, t := range p.Tensors {
		if len(t.Shape) == 1 {
			for j := range t.Data {
				t.Data[j] = 0.5 + float32((i*7+j*3)%11)/10
			}
		}
	}
	return p
}

func carry(t *testing.T, src *model.Params, to model.Config, tokens []int32) (*model.Params, []string) {
	t.Helper()
	r, err := reshape.Make(src, to, tokens, nil)
	if err != nil {
		t.Fatal(err)
	}
	dst := model.NewParams(to, !src.HeadTied)
	if err := r.Fill(dst, 1); err != nil {
		t.Fatal(err)
	}
	return dst, r.Notes()
}

func same(t *testing.T, got, want *model.Params) {
	t.Helper()
	for i, w := range want.Tensors {
		if !slices.Equal(got.Tensors[i].Data, w.Data) {
			t.Errorf("%s: %v, want %v", w.Name, got.Tensors[i].Data, w.Data)
		}
	}
}

// Nothing moves where nothing changes, and nothing is told.
func TestSameShape(t *testing.T) {
	for _, untied := range []bool{false, true} {
		src := random(small(), untied, 3)
		got, notes := carry(t, src, small(), nil)
		same(t, got, src)
		if len(notes) > 0 {
			t.Errorf("told %q", notes)
		}
	}
}

// padded is p in a larger shape, with zeros for all that is added: channels,
// heads, hidden units, each put before and between the old ones.
func padded(p *model.Params) (big *model.Params, c model.Config) {
	c = p.Config
	c.NEmbd, c.NHead, c.NInner = 12, 4, 13 // heads stay 3 wide
	big = model.NewParams(c, !p.HeadTied)
	ch := []int{1, 2, 5, 7, 8, 11}
	heads := []int{1, 3}
	var head, hidden, one []int
	for _, h := range heads {
		head = append(head, 3*h, 3*h+1, 3*h+2)
	}
	for i := range 10 {
		hidden = append(hidden, i+i/4+1)
	}
	one = []int{0}
	var qkv []int
	for part := range 3 {
		for _, i := range head {
			qkv = append(qkv, part*12+i)
		}
	}
	all := func(n int) (x []int) {
		for i := range n {
			x = append(x, i)
		}
		return x
	}
	put := func(dst, src []float32, width int, rows, cols []int) {
		for i, r := range rows {
			for j, col := range cols {
				dst[r*width+col] = src[i*len(cols)+j]
			}
		}
	}
	put(big.WTE, p.WTE, 12, all(7), ch)
	put(big.WPE, p.WPE, 12, all(5), ch)
	for l := range p.Blocks {
		d, s := &big.Blocks[l], &p.Blocks[l]
		for _, v := range [][2][]float32{{d.LN1Gain, s.LN1Gain}, {d.LN1Bias, s.LN1Bias}, {d.LN2Gain, s.LN2Gain}, {d.LN2Bias, s.LN2Bias}, {d.ProjB, s.ProjB}, {d.OutB, s.OutB}} {
			put(v[0], v[1], 12, one, ch)
		}
		put(d.AttnW, s.AttnW, 36, ch, qkv)
		put(d.AttnB, s.AttnB, 36, one, qkv)
		put(d.ProjW, s.ProjW, 12, head, ch)
		put(d.FcW, s.FcW, 13, ch, hidden)
		put(d.FcB, s.FcB, 13, one, hidden)
		put(d.OutW, s.OutW, 12, hidden, ch)
	}
	put(big.LNFGain, p.LNFGain, 12, one, ch)
	put(big.LNFBias, p.LNFBias, 12, one, ch)
	return big, c
}

// Channels, heads and hidden units that do nothing are what is left out, the
// same channels everywhere: the small model comes out of the large one.
func TestLeavesOutWhatIsSmall(t *testing.T) {
	want := random(small(), false, 5)
	big, _ := padded(want)
	got, notes := carry(t, big, small(), nil)
	same(t, got, want)
	told := strings.Join(notes, "; ")
	for _, part := range []string{"heads 4 to 2", "n_embd 12 to 6", "n_inner 13 to 10"} {
		if !strings.Contains(told, part) {
			t.Errorf("%q is not told in %q", part, told)
		}
	}
}

// Narrower heads keep their largest dimensions and the size of their scores;
// wider ones keep theirs and begin the rest anew.
func TestHeadWidth(t *testing.T) {
	c := small()
	c.NEmbd, c.NHead = 8, 2
	src := random(c, false, 9)
	for l := range src.Blocks { // dimension 1 of head 0 and 6 of head 1 are nothing
		b := &src.Blocks[l]
		for row := range slices.Chunk(b.AttnW, 24) {
			for _, d := range []int{1, 6} {
				row[d], row[8+d], row[16+d] = 0, 0, 0
			}
		}
		for _, d := range []int{1, 6} {
			b.AttnB[d], b.AttnB[8+d], b.AttnB[16+d] = 0, 0, 0
			clear(b.ProjW[d*8 : d*8+8])
		}
	}
	got, _ := carry(t, src, small(), nil) // 6 wide: heads of 3 instead of 4
	scale := float32(math.Sqrt(3.0 / 4))
	for i, from := range []int{0, 2, 3, 4, 5, 7} {
		b, s := &got.Blocks[1], &src.Blocks[1]
		if b.AttnB[i] != scale*s.AttnB[from] || b.AttnB[6+i] != s.AttnB[8+from] || b.AttnB[12+i] != s.AttnB[16+from] {
			t.Errorf("dimension %d does not come from %d", i, from)
		}
	}
	to := c
	to.NHead = 1 // one head of 8: four dimensions of the larger one, four new
	got, notes := carry(t, src, to, nil)
	b := &got.Blocks[0]
	zero := 0
	for _, v := range b.AttnB[:8] {
		if v == 0 {
			zero++
		}
	}
	if zero < 4 || zero == 8 || !strings.Contains(strings.Join(notes, ";"), "4 dimensions are new") {
		t.Errorf("the bias of the queries is %v, told %q", b.AttnB[:8], notes)
	}
	for i, v := range b.ProjW {
		if v == 0 && i >= 4*8 {
			t.Errorf("row %d of the projection is nothing", i/8)
		}
	}
}

// Layers are taken evenly, the first and the last among them.
func TestLayers(t *testing.T) {
	c := small()
	c.NLayer = 12
	src := random(c, false, 2)
	for n, want := range map[int][]int{12: {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 9: {0, 1, 3, 4, 6, 7, 8, 10, 11}, 6: {0, 2, 4, 7, 9, 11}, 2: {0, 11}, 1: {0}} {
		to := c
		to.NLayer = n
		got, _ := carry(t, src, to, nil)
		for i, l := range want {
			if !slices.Equal(got.Blocks[i].FcW, src.Blocks[l].FcW) {
				t.Errorf("%d layers: number %d is not %d", n, i, l)
			}
		}
	}
}

// A shorter position table is the first rows, a longer one goes on with the
// second half.
func TestPositions(t *testing.T) {
	src := random(small(), false, 4)
	row := func(p *model.Params, i int) []float32 { return p.WPE[i*6 : i*6+6] }
	to := small()
	to.NPositions, to.NCtx = 3, 3
	got, _ := carry(t, src, to, nil)
	if !slices.Equal(got.WPE, src.WPE[:18]) {
		t.Error("not the first rows")
	}
	to.NPositions, to.NCtx = 10, 10
	got, _ = carry(t, src, to, nil)
	for i, want := range []int{0, 1, 2, 3, 4, 2, 3, 4, 2, 3} {
		if !slices.Equal(row(got, i), row(src, want)) {
			t.Errorf("row %d is not %d", i, want)
		}
	}
}

// Tokens go where the new vocabulary has them; new ones begin near the mean.
func TestVocabulary(t *testing.T) {
	for _, untied := range []bool{false, true} {
		src := random(small(), untied, 6)
		to := small()
		to.VocabSize = 4
		got, notes := carry(t, src, to, []int32{3, reshape.New, 0, 6})
		for i, from := range map[int]int{0: 3, 2: 0, 3: 6} {
			if !slices.Equal(got.WTE[i*6:i*6+6], src.WTE[from*6:from*6+6]) || !slices.Equal(got.Head[i*6:i*6+6], src.Head[from*6:from*6+6]) {
				t.Errorf("token %d is not %d", i, from)
			}
		}
		for c := range 6 {
			mean := (src.WTE[18+c] + src.WTE[c] + src.WTE[36+c]) / 3
			if d := math.Abs(float64(got.WTE[6+c] - mean)); d > 6*0.02+1e-6 || d == 0 {
				t.Errorf("the new token's channel %d is %v, and the mean %v", c, got.WTE[6+c], mean)
			}
		}
		if told := strings.Join(notes, ";"); !strings.Contains(told, "3 tokens are carried, 1 are new") {
			t.Errorf("told %q", told)
		}
	}
}

// What cannot be made of the weights is refused, all of it named.
func TestRefuses(t *testing.T) {
	to := small()
	to.NLayer, to.NHead, to.NEmbd, to.NInner, to.VocabSize, to.Activation = 3, 4, 12, 20, 9, model.ReLU
	_, err := reshape.Make(random(small(), false, 1), to, nil, nil)
	if fault.Code(err) != fault.CodeUsage {
		t.Fatal(err)
	}
	for _, name := range []string{"n_layer", "n_head", "n_embd", "n_inner", "activation_function", "vocabulary"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	none := []int32{reshape.New, reshape.New}
	to = small()
	to.VocabSize = 2
	if _, err := reshape.Make(random(small(), false, 1), to, none, nil); fault.Code(err) != fault.CodeUsage {
		t.Errorf("no token in common: %v", err)
	}
}
