package dist

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"

	"promptgen/internal/fault"
)

// ErrElsewhere is wrapped by an error that another rank reports: this one has
// nothing to say about it.
var ErrElsewhere = errors.New("another rank reports it")

// verdict is how a rank fared, as the others hear of it.
type verdict struct {
	Failed bool
	Code   int
	Text   string
	Host   string
}

// Agree lets all ranks know whether one of them has failed: all get the error
// of the first that did, which rank 0 reports. It is also where ranks wait for
// one that does something alone, however long it takes.
func (g *Group) Agree(mine error) error {
	if g == nil {
		return mine
	}
	v := verdict{Host: g.host}
	if mine != nil {
		v.Failed, v.Code, v.Text = true, fault.Code(mine), mine.Error()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	all, err := g.gather(longWait, "waiting for all ranks", b)
	if err != nil {
		return err
	}
	for r, b := range all {
		var v verdict
		if err := json.Unmarshal(b, &v); err != nil {
			return fmt.Errorf("rank %d sent something else than a verdict: %w", r, err)
		}
		switch {
		case !v.Failed:
			continue
		case r == g.rank && r == 0:
			return agreed{mine}
		case g.Lead():
			return agreed{fault.With(v.Code, fmt.Errorf("rank %d (%s): %s", r, v.Host, v.Text))}
		}
		return agreed{fault.With(v.Code, fmt.Errorf("rank %d: %w", r, ErrElsewhere))}
	}
	return nil
}

// agreed is an error that all ranks have.
type agreed struct{ error }

func (a agreed) Unwrap() error { return a.error }

// Agreed says whether all ranks have an error (or none): they can leave
// together.
func Agreed(err error) bool {
	var a agreed
	return err == nil || errors.As(err, &a)
}

// Together marks an error that all ranks come to by themselves, from the same
// numbers. Rank 0 reports it.
func (g *Group) Together(err error) error {
	switch {
	case g == nil || err == nil:
		return err
	case g.Lead():
		return agreed{err}
	}
	return agreed{fault.With(fault.Code(err), fmt.Errorf("%w: %w", ErrElsewhere, err))}
}

// Same refuses ranks that are not alike: facts names what must be equal, and
// the error says which rank differs from rank 0 in what.
func (g *Group) Same(facts map[string]string) error {
	if g == nil {
		return nil
	}
	mine, err := json.Marshal(struct {
		Host  string
		Facts map[string]string
	}{g.host, facts})
	if err != nil {
		return err
	}
	all, err := g.Gather(mine)
	if err != nil {
		return err
	}
	ranks := make([]struct {
		Host  string
		Facts map[string]string
	}, len(all))
	for r := range all {
		if err := json.Unmarshal(all[r], &ranks[r]); err != nil {
			return fmt.Errorf("what rank %d says of itself cannot be read: %w", r, err)
		}
	}
	var faults fault.List
	for r := 1; r < len(ranks); r++ {
		for _, key := range keysOf(ranks[0].Facts, ranks[r].Facts) {
			if a, b := ranks[0].Facts[key], ranks[r].Facts[key]; a != b {
				faults.Addf("%s is %s at rank %d (%s), but %s at rank 0 (%s)", key, shown(b), r, ranks[r].Host, shown(a), ranks[0].Host)
			}
		}
	}
	return g.Together(faults.Err("the ranks of the job differ; they must run the same program with the same options on the same data and kind of processor"))
}

func keysOf(maps ...map[string]string) []string {
	seen := map[string]bool{}
	var keys []string
	for _, m := range maps {
		for k := range m {
			if !seen[k] {
				keys = append(keys, k)
			}
			seen[k] = true
		}
	}
	sort.Strings(keys)
	return keys
}

func shown(s string) string {
	if s == "" {
		return "missing"
	}
	return s
}
