"""The tests of the example's workflows: no server, no waiting. Copy them for your own."""
