package scrape

// For tests.
var (
	Parse       = parse
	Urgent      = urgent
	SortPorts   = sortPorts
	CheckReport = checkReport
)
