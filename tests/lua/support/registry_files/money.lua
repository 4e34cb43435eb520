-- Counts how often it is run: once per VM.
runs_of_money = (rawget(_G, "runs_of_money") or 0) + 1
return { name = "money", runs = runs_of_money }
