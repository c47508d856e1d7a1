// Command questions prints made-up questions, a part of the text that temper-mini is distilled on: people ask short questions, and plain
// running text holds few.
//
//	go run ./tests/bench/base/questions 20000 > questions.txt
package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// forms are questions; {x} is a word of the list x.
var forms = strings.Split(strings.TrimSpace(`
Who {made} the {thing} ?
Who was the first {job} in {place} ?
Who is the {job} of {place} ?
Who wrote the {art} about {topic} ?
Who played the {job} in the {art} about {topic} ?
Who founded the {group} in {place} ?
What {job} {made} the {thing} ?
Which {job} won the prize for {topic} ?
What is the name of the {job} who {made} the {thing} ?
Name the {job} who lived in {place} .
What {group} makes the {thing} ?
Which {group} plays {game} in {place} ?
When was the {thing} {madeby} ?
When did {place} become free ?
What year did the {group} of {place} begin ?
What day is the {event} in {place} ?
How many {many} are there in {place} ?
How many {many} does a {animal} have ?
How much does a {thing} cost ?
How long does it take to travel to {place} ?
How far is {place} from {place} ?
How old is the {job} of {place} ?
How tall is the {landmark} in {place} ?
How fast can a {animal} run ?
How hot is the {landmark} in {place} ?
What is the population of {place} ?
What is the speed of a {thing} ?
What percentage of {many} live in {place} ?
Where is {place} ?
Where is the {landmark} of {place} ?
Where was the {thing} {madeby} ?
Where do {animal}s live ?
What country has the most {many} ?
What city in {place} has a {landmark} ?
What is the capital of {place} ?
What is the largest {landmark} in {place} ?
Which {landmark} is near {place} ?
What river runs through {place} ?
What is a {thing} ?
What is {topic} ?
What does {topic} mean ?
What causes {illness} ?
What are the signs of {illness} ?
Why do {animal}s {act} ?
Why is the {landmark} {colour} ?
Why did the {group} leave {place} ?
How do you {do} a {thing} ?
How does a {thing} work ?
How is {food} made ?
How do I {do} my {thing} ?
What is the difference between a {thing} and a {thing} ?
What is the history of {topic} ?
What is the purpose of a {thing} ?
Describe the {event} of {place} .
What {animal} can {act} ?
What kind of {animal} lives in {place} ?
What colour is a {animal} ?
What {food} is best for {illness} ?
What {game} is played with a {thing} ?
What language do people speak in {place} ?
What is the best {food} in {place} ?
What instrument is made of {stuff} ?
What {stuff} is used in a {thing} ?
What is the {art} about {topic} called ?
Name a {game} for two people .
What do you call a group of {animal}s ?
What is another word for {topic} ?
What is the longest word for a {thing} ?
What does the letter {letter} stand for in {place} ?
What is the short form of {topic} ?
What do the letters {letter} {letter} {letter} mean ?
What is the full name of the {letter} {letter} {group} ?
Can I {do} my {thing} online ?
Is there a {landmark} near {place} ?
Do you have a {thing} made of {stuff} ?
Could you {do} the {thing} for me ?
Are {animal}s afraid of {animal}s ?
Should I eat {food} when I have {illness} ?
Does the {group} open on {day} ?
Will the {event} be on {day} ?
`), "\n")

var lists = map[string]string{
	"made":     "invented built designed painted discovered found bought stole sold broke described named opened closed",
	"madeby":   "invented built designed painted discovered found bought stolen sold broken described named opened closed",
	"thing":    "telephone clock bicycle mirror lamp engine piano violin camera radio book knife ring bridge ladder window computer printer battery card account password ticket phone car boat train plane rocket balloon wheel hammer needle bottle key lock door table chair shirt shoe hat coat watch pen letter map flag coin stamp drum guitar bell candle robot satellite telescope microscope tractor umbrella wallet parcel charger keyboard contract passport",
	"job":      "president king queen doctor singer actor painter writer poet captain inventor teacher judge general pilot farmer cook dancer lawyer banker mayor bishop soldier sailor scientist composer architect nurse astronaut explorer baseball:player football:player film:director prime:minister company:founder",
	"place":    "France Italy Spain Portugal Greece Turkey Egypt Kenya Nigeria India China Japan Korea Vietnam Australia Canada Mexico Brazil Peru Chile Russia Poland Norway Sweden Finland Iceland Ireland Scotland England Germany Austria Hungary Cuba Jamaica Texas Alaska Hawaii California Florida London Paris Rome Berlin Madrid Lisbon Athens Cairo Delhi Tokyo Sydney Toronto Chicago Boston Africa Europe Asia Antarctica the:desert the:north the:south the:moon Mars the:world",
	"art":      "book film song play novel poem opera painting story album show comic",
	"topic":    "war peace love money friendship the:sea the:stars music science religion football chess history gravity light electricity freedom democracy justice climate energy medicine chemistry poetry slavery inflation evolution marriage hunger sleep dreams time fear honour beauty truth luck trade taxes insurance interest credit",
	"group":    "company band team club school church army bank party museum union library university hospital airline newspaper government tribe family store restaurant",
	"game":     "football tennis chess golf hockey baseball cricket basketball poker cards rugby volleyball",
	"event":    "festival war election race wedding revolution holiday meeting concert fair storm earthquake game parade",
	"many":     "people islands lakes states languages schools rivers bones teeth legs eyes stars players cities books cars horses soldiers children hours days trees mountains banks doctors",
	"animal":   "dog cat horse cow whale shark eagle snake spider bee ant elephant tiger lion bear wolf fox rabbit mouse frog turtle penguin owl parrot camel monkey dolphin crocodile bat sheep",
	"landmark": "mountain river lake bridge tower castle palace volcano desert island park garden airport station stadium temple harbour waterfall cave street building ocean",
	"illness":  "a:cold a:headache fever cancer malaria diabetes a:cough allergies asthma flu stress back:pain a:rash sleeplessness",
	"act":      "fly swim sing sleep jump bark hunt climb dig migrate bite hide change:colour live:in:groups see:at:night",
	"colour":   "red blue green black white yellow grey cold hot dark famous",
	"do":       "repair open close clean build paint sell send cancel change return order fix use draw carry activate replace",
	"food":     "bread cheese chocolate coffee tea wine beer rice soup honey butter sugar fish chicken garlic pasta milk salad",
	"stuff":    "wood iron gold silver glass paper stone leather cotton plastic steel copper rubber silk",
	"letter":   "A B C D E F G H I L M N O P R S T U V W",
	"day":      "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
}

func main() {
	n := 20_000
	if len(os.Args) > 1 {
		var err error
		if n, err = strconv.Atoi(os.Args[1]); err != nil || n < 0 {
			fmt.Fprintf(os.Stderr, "questions: %q: expected a number of questions\n", os.Args[1])
			os.Exit(2)
		}
	}
	words := map[string][]string{}
	for k, v := range lists {
		words[k] = strings.Fields(v)
	}
	rng := rand.New(rand.NewPCG(1, 0x71756573))
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	seen := map[string]bool{}
	for tries := 0; len(seen) < n && tries < 20*n; tries++ {
		q := forms[rng.IntN(len(forms))]
		for {
			at := strings.IndexByte(q, '{')
			if at < 0 {
				break
			}
			end := at + strings.IndexByte(q[at:], '}')
			list := words[q[at+1:end]]
			q = q[:at] + strings.ReplaceAll(list[rng.IntN(len(list))], ":", " ") + q[end+1:]
		}
		if rng.IntN(2) == 0 { // written as people do
			q = strings.ReplaceAll(strings.ReplaceAll(q, " ?", "?"), " .", ".")
		}
		if !seen[q] {
			seen[q] = true
			fmt.Fprintln(w, q)
		}
	}
}
