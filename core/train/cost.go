package train

// Cost is what a run took. CPUSeconds and Tokens are measured; FLOPs is counted from shapes; Joules and Money are estimates from Rates.
type Cost struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	Tokens     int64   `json:"tokens"`
	FLOPs      float64 `json:"flops"`
	Joules     float64 `json:"joules"`
	Money      float64 `json:"money"`
	Currency   string  `json:"currency"`
	// Estimate says which fields are not measured, and by which rates.
	Estimate string `json:"estimate,omitempty"`
}

// Rates turn CPU time into energy and money.
type Rates struct {
	// WattsPerCore is the draw of one busy core with its share of the machine.
	WattsPerCore float64
	// MoneyPerCoreHour is the price of one virtual core for an hour.
	MoneyPerCoreHour float64
	Currency         string
}

// DefaultRates are those of an ordinary cloud machine: some 10 W and 4 cents an hour per virtual core.
func DefaultRates() Rates { return Rates{WattsPerCore: 10, MoneyPerCoreHour: 0.04, Currency: "USD"} }

// Fill sets the estimates of c.
func (r Rates) Fill(c Cost) Cost {
	if r == (Rates{}) {
		r = DefaultRates()
	}
	c.Joules = c.CPUSeconds * r.WattsPerCore
	c.Money = c.CPUSeconds / 3600 * r.MoneyPerCoreHour
	c.Currency = r.Currency
	c.Estimate = "flops counted from shapes; joules and money from CPU time at fixed rates"
	return c
}

// Add returns the sum of two costs; estimates are those of c's currency.
func (c Cost) Add(d Cost) Cost {
	c.CPUSeconds += d.CPUSeconds
	c.Tokens += d.Tokens
	c.FLOPs += d.FLOPs
	c.Joules += d.Joules
	c.Money += d.Money
	if c.Currency == "" {
		c.Currency, c.Estimate = d.Currency, d.Estimate
	}
	return c
}

// Usage is the CPU time of the process in seconds and its largest resident size in bytes; 0 where the system does not tell.
func Usage() (cpuSeconds float64, peakRSS int64) { return usage() }
