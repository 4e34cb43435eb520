return { money = cash, name = "tax" }
