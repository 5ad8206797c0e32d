"""What people type, to measure a search index by: texts lie elsewhere among the vectors than photos do."""

TYPICAL_QUERIES = tuple(
    line.strip()
    for line in """
    a baby
    a baby asleep in a crib
    a barbecue in the garden
    a beach at sunset
    a bicycle leaning against a wall
    a bird on a branch
    a birthday cake with candles
    a black and white portrait
    a boat on the water
    a book on a shelf
    a bowl of fruit
    a boy in a blue shirt
    a boy jumping into a pool
    a bride and groom dancing
    a bridge over a river
    a building with a clock
    a bunch of roses
    a bus in the city
    a butterfly on a flower
    a candle in the dark
    a castle on a hill
    a cathedral from inside
    a child blowing out candles
    a child with an ice cream
    a Christmas tree with presents
    a church
    a cloudy sky over fields
    a concert with a crowd
    a couple holding hands
    a cow in a meadow
    a crowded market
    a dancer on a stage
    a dinner table with friends
    a dog catching a ball
    a dog running on the beach
    a dog wearing a coat
    a field of sunflowers
    a fire in the fireplace
    a fisherman with his catch
    a football match
    a forest path in autumn
    a fountain in a park
    a girl on a swing
    a girl playing the violin
    a girl in a yellow dress
    a glass of wine
    a goat on a rock
    a grandmother with her grandchild
    a group of people in the mountains
    a group photo at a wedding
    a guitar
    a harbour with sailing boats
    a hat
    a helicopter
    a horse galloping
    a horse in a stable
    a hospital room
    a hotel room
    a house with a red roof
    a jacket
    a jigsaw puzzle
    a kitchen
    a kite in the sky
    a ladder against a tree
    a laptop on a desk
    a lighthouse
    a lion
    a living room with a sofa
    a map
    a man climbing a rock
    a man cooking
    a man in a suit
    a man on a motorcycle
    a man reading a newspaper
    a man with a beard
    a mirror selfie
    a motorcycle
    a mountain lake
    a museum
    a necklace
    a painting on a wall
    a park bench
    a penguin
    a person skiing downhill
    a person surfing a wave
    a piano
    a pizza
    a plate of pasta
    a police car
    a puppy
    a race with many runners
    a rainbow
    a receipt
    a restaurant at night
    a road through the desert
    a rabbit
    a sandwich
    a school class
    a screenshot
    a sheep
    a shirt on a hanger
    a shop window
    a sign with writing on it
    a skateboarder doing a trick
    a skirt
    a sleeping cat
    a snowman
    a spider
    a statue
    a suitcase
    a sunrise over the sea
    a swimming pool
    a table set for breakfast
    a teacher in front of a blackboard
    a tent in the woods
    a tractor
    a train at a station
    a tree without leaves
    a truck
    a turtle
    a violin
    a watch
    a waterfall
    a whiteboard full of notes
    a window with curtains
    a woman in a long dress
    a woman in sunglasses
    a woman laughing
    a woman riding a bicycle
    a woman with an umbrella
    a zebra
    an airport
    an elephant
    an empty street at night
    an old car
    an old man with a stick
    an orange
    children playing in the sand
    children running
    city lights from above
    fireworks
    fishing by the river
    friends laughing at a party
    graffiti
    hiking with backpacks
    mum and dad
    my desk
    people at a demonstration
    people sitting around a campfire
    skyscrapers
    somebody throwing a ball
    the Eiffel Tower
    three people at a table
    trousers
    two dogs fighting over a stick
    two women talking
    vegetables at a market
    """.splitlines()
    if line.strip()
)
"""Of things, people, doings and places, as photo libraries have them."""
