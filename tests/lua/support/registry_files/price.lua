return { money = money, required = require("money"), name = "price" }
