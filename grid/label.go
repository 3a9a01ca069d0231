package grid

// Labels describe a node, such as zone=a. Every node also has os, arch and node, its peer ID.
type Labels map[string]string

// MaxLabels is how many a node may have.
const MaxLabels = 64
