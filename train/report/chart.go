package report

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"

	"promptgen/train/runlog"
)

// The size of a chart in units of its own, and the margins for its figures.
const (
	chartWidth, chartHeight                       = 640.0, 300.0
	marginLeft, marginRight, marginTop, marginEnd = 58.0, 14.0, 12.0, 30.0
)

// chart is one diagram over the steps.
type chart struct {
	Title   string
	Chinese string
	Unit    string
	SVG     template.HTML
	Legend  []legend
}

type legend struct {
	Class string // of the line
	Name  string
	Last  string
}

// line is one curve: for each step a value.
type line struct {
	steps  []float64
	values []float64
	class  string // of the path
	name   string
	dots   bool
}

// figure is what a chart shows of each line of metrics.
type figure struct {
	of    func(runlog.Line) *float64
	name  string
	class string // added to the run's colour
	dots  bool
}

// charts draws all of them. With several runs each has a colour; with one, the
// training and the validation have.
func charts(series []Series) []chart {
	of := func(tag string) func(runlog.Line) *float64 {
		for _, c := range runlog.Curves {
			if c.Tag == tag {
				return c.Of
			}
		}
		panic("report: no curve " + tag) // a programming error, found by every test
	}
	var out []chart
	for _, c := range []struct {
		title, chinese, unit string
		log                  bool
		figures              []figure
	}{
		{"Loss", "损失", "nats a token", false, []figure{
			{of("train/loss"), "training", "", false},
			{of("val/loss"), "validation", "val", true}}},
		{"Learning rate", "学习率", "", false, []figure{{of("train/lr"), "rate", "", false}}},
		{"Gradient norm", "梯度范数", "before clipping", true, []figure{{of("train/grad_norm"), "norm", "", false}}},
		{"Speed", "速度", "tokens a second", false, []figure{{of("train/tokens_per_s"), "tokens/s", "", false}}},
	} {
		var lines []line
		for i, s := range series {
			for j, f := range c.figures {
				color := i
				if len(series) == 1 {
					color = j
				}
				l := line{class: fmt.Sprintf("c%d %s", color%8, f.class), name: f.name, dots: f.dots}
				if len(series) > 1 {
					l.name = s.Name + " · " + f.name
				}
				for _, m := range s.Lines {
					if v := f.of(m); v != nil {
						l.steps, l.values = append(l.steps, float64(m.Step)), append(l.values, *v)
					}
				}
				if len(l.steps) > 0 {
					lines = append(lines, l)
				}
			}
		}
		if len(lines) > 0 {
			out = append(out, draw(c.title, c.chinese, c.unit, c.log, lines))
		}
	}
	return out
}

// axis maps values to places.
type axis struct {
	lo, hi   float64
	from, to float64 // places
	log      bool
}

func (a axis) at(v float64) float64 {
	lo, hi := a.lo, a.hi
	if a.log {
		v, lo, hi = math.Log10(v), math.Log10(lo), math.Log10(hi)
	}
	return a.from + (v-lo)/(hi-lo)*(a.to-a.from)
}

// ticks are some round values on the axis.
func (a axis) ticks() []float64 {
	var out []float64
	if a.log && a.hi/a.lo > 20 {
		for e := math.Floor(math.Log10(a.lo)); e <= math.Ceil(math.Log10(a.hi)); e++ {
			if v := math.Pow(10, e); v >= a.lo*0.999 && v <= a.hi*1.001 {
				out = append(out, v)
			}
		}
		return out
	}
	raw := (a.hi - a.lo) / 5
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	step := unit
	for _, m := range []float64{1, 2, 5, 10} {
		if step = m * unit; step >= raw {
			break
		}
	}
	for v := math.Ceil(a.lo/step) * step; v <= a.hi+step*1e-9; v += step {
		if math.Abs(v) < step*1e-9 {
			v = 0
		}
		out = append(out, v)
	}
	return out
}

// draw makes one chart of lines, at least one with at least one value.
func draw(title, chinese, unit string, log bool, lines []line) chart {
	c := chart{Title: title, Chinese: chinese, Unit: unit}
	x := axis{lo: math.Inf(1), hi: math.Inf(-1), from: marginLeft, to: chartWidth - marginRight}
	y := axis{lo: math.Inf(1), hi: math.Inf(-1), from: chartHeight - marginEnd, to: marginTop}
	for _, l := range lines {
		for i, v := range l.values {
			x.lo, x.hi = min(x.lo, l.steps[i]), max(x.hi, l.steps[i])
			y.lo, y.hi = min(y.lo, v), max(y.hi, v)
		}
	}
	y.log = log && y.lo > 0
	x.widen(0, 1)
	if y.log {
		y.lo, y.hi = y.lo/1.1, y.hi*1.1
	} else {
		y.widen(0.06, math.Max(math.Abs(y.hi)*0.05, 1e-12))
		if y.lo > 0 && y.lo < 0.2*y.hi {
			y.lo = 0
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s %s">`, chartWidth, chartHeight, title, chinese)
	for _, v := range y.ticks() {
		p := place(y.at(v))
		fmt.Fprintf(&b, `<path class="grid" d="M%g %sH%g"/><text class="tick" x="%g" y="%s" dy="4" text-anchor="end">%s</text>`,
			marginLeft, p, chartWidth-marginRight, marginLeft-8, p, tick(v))
	}
	for _, v := range x.ticks() {
		if v != math.Trunc(v) {
			continue
		}
		fmt.Fprintf(&b, `<text class="tick" x="%s" y="%g" text-anchor="middle">%s</text>`, place(x.at(v)), chartHeight-10, humanCount(int64(v)))
	}
	for _, l := range lines {
		l.draw(&b, x, y)
		c.Legend = append(c.Legend, legend{l.class, l.name, number(l.values[len(l.values)-1])})
	}
	b.WriteString("</svg>")
	c.SVG = template.HTML(b.String()) // numbers and our own words only
	return c
}

// widen makes room: a share of the axis' length on both sides, and something
// where all values are the same.
func (a *axis) widen(share, atLeast float64) {
	if a.hi-a.lo < atLeast*1e-3 || a.hi == a.lo {
		a.lo, a.hi = a.lo-atLeast/2, a.hi+atLeast/2
	}
	room := share * (a.hi - a.lo)
	a.lo, a.hi = a.lo-room, a.hi+room
}

// smoothFrom is how many values a curve must have to be drawn smoothed over
// its faint self.
const smoothFrom = 60

func (l *line) draw(b *strings.Builder, x, y axis) {
	if !l.dots && len(l.values) >= smoothFrom && l.noisy() {
		fmt.Fprintf(b, `<path class="line raw %s" d="%s"/>`, l.class, l.path(l.values, x, y))
		fmt.Fprintf(b, `<path class="line %s" d="%s"/>`, l.class, l.path(smooth(l.values), x, y))
		return
	}
	fmt.Fprintf(b, `<path class="line %s" d="%s"/>`, l.class, l.path(l.values, x, y))
	if l.dots && len(l.values) <= 200 {
		for i, v := range l.values {
			fmt.Fprintf(b, `<circle class="dot %s" cx="%s" cy="%s" r="3.5"><title>step %g: %s</title></circle>`,
				l.class, place(x.at(l.steps[i])), place(y.at(v)), l.steps[i], number(v))
		}
	} else if len(l.values) == 1 {
		fmt.Fprintf(b, `<circle class="dot %s" cx="%s" cy="%s" r="3.5"/>`, l.class, place(x.at(l.steps[0])), place(y.at(l.values[0])))
	}
}

// noisy says whether neighbours differ so much that the curve hides its trend.
func (l *line) noisy() bool {
	turns := 0
	for i := 2; i < len(l.values); i++ {
		if (l.values[i]-l.values[i-1])*(l.values[i-1]-l.values[i-2]) < 0 {
			turns++
		}
	}
	return turns > len(l.values)/5
}

// smooth is a moving mean over a fiftieth of the curve to both sides.
func smooth(values []float64) []float64 {
	out, reach := make([]float64, len(values)), max(2, len(values)/50)
	for i := range values {
		near := values[max(0, i-reach):min(len(values), i+reach+1)]
		for _, v := range near {
			out[i] += v / float64(len(near))
		}
	}
	return out
}

func (l *line) path(values []float64, x, y axis) string {
	var b strings.Builder
	for i, v := range values {
		b.WriteByte("ML"[min(i, 1)])
		b.WriteString(place(x.at(l.steps[i])) + " " + place(y.at(v)))
	}
	return b.String()
}

func place(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// tick is a value at an axis.
func tick(v float64) string {
	switch a := math.Abs(v); {
	case a >= 10000:
		return humanCount(int64(math.Round(v)))
	case a != 0 && a < 1e-4:
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'g', -1, 64)
}
