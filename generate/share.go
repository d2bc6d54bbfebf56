package generate

import "slices"

// start begins samples of prompts that are read, and goes on with those that
// were paused, as long as there are places. Where there are none, a request
// with more than its share gives one up: a sample of it is paused with all that
// it has in the cache, so that it later goes on as if nothing had been.
func (s *scheduler) start() {
	for {
		var fresh []*sequence
		var raw [][]float32
		for {
			j := s.nextToStart()
			if j == nil || len(s.active)+s.unread() >= s.e.opts.Slots && !s.makeRoom(j.live) {
				break
			}
			j.live++
			if len(j.paused) > 0 {
				s.active = append(s.active, j.paused[0])
				j.paused = j.paused[1:]
				continue
			}
			q := s.begin(j, j.todo[0])
			j.todo = j.todo[1:]
			s.active = append(s.active, q)
			fresh, raw = append(fresh, q), append(raw, j.logits)
		}
		if len(fresh) == 0 {
			break
		}
		s.advance(fresh, raw) // some may be complete with their first token
	}
	for s.unread() > 0 && len(s.active)+s.unread() > s.e.opts.Slots && s.makeRoom(0) {
	}
}

// nextToStart is the job with the fewest live samples of those that have more
// to write.
func (s *scheduler) nextToStart() *job {
	var best *job
	for _, j := range s.jobs {
		if j.logits != nil && j.pending() && (best == nil || j.live < best.live) {
			best = j
		}
	}
	return best
}

// makeRoom pauses a sample of the job with the most live ones, if that still
// leaves it more than a job with live ones will have.
func (s *scheduler) makeRoom(live int) bool {
	var most *job
	for _, j := range s.jobs {
		if most == nil || j.live > most.live {
			most = j
		}
	}
	if most == nil || most.live <= live+1 {
		return false
	}
	last := len(s.active) - 1
	for s.active[last].job != most {
		last--
	}
	most.paused = append(most.paused, s.active[last])
	most.live--
	s.active = slices.Delete(s.active, last, last+1)
	return true
}

// unread counts the jobs whose prompt is still to be read.
func (s *scheduler) unread() int {
	n := 0
	for _, j := range s.jobs {
		if j.logits == nil {
			n++
		}
	}
	return n
}

// begin starts a sample; it shares the pages of the prompt.
func (s *scheduler) begin(j *job, d draft) *sequence {
	q := newSequence(j, d)
	if q.beam != nil {
		q.beam.live[0].cache = s.f.pool.fork(&j.cache, j.cache.n)
	} else {
		q.cache = s.f.pool.fork(&j.cache, j.cache.n)
	}
	return q
}
