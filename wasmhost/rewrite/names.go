package rewrite

// The name section gives functions the names that stand in a trap's stack. Only those are kept.
const nameFunctions = 1

// readNames prepares the names of functions. A section that is not as it should be gives none: nothing
// but messages depends on it.
func (m *module) readNames(r reader) {
	for r.more() && r.err == nil {
		id := r.byte()
		s := r.sub()
		if id == nameFunctions && r.err == nil {
			m.names = m.functionNames(&s)
			return
		}
	}
}

func (m *module) functionNames(r *reader) []byte {
	n := r.count("names", maxFunctions+maxImports, 2)
	added := 0
	var body []byte
	add := func(f uint32, name []byte) {
		added++
		body = append(appendU32(appendU32(body, f), uint32(len(name))), name...)
	}
	refuel := m.opt.Fuel // still to be added
	last := -1
	for range n {
		f := r.index("function", m.functions)
		name := r.name()
		if r.err != nil || int(f) <= last {
			return nil
		}
		last = int(f)
		if refuel && last >= m.imported {
			add(uint32(m.imported), []byte(ImportModule+"."+ImportRefuel))
			refuel = false
		}
		add(m.moved(f), name)
	}
	if r.end(); r.err != nil {
		return nil
	}
	if refuel {
		add(uint32(m.imported), []byte(ImportModule+"."+ImportRefuel))
	}
	if m.opt.Fuel && m.helpers {
		for which, name := range helperNames {
			add(m.helper(which), []byte(name))
		}
	}
	return append(appendU32(nil, uint32(added)), body...)
}
