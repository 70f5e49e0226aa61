"""Three questions to the clustering analysis, each a JSON file beside this one.

python examples/clustering_analysis_example.py

Which kinds of customers are there (kmeans after PCA)? Which sensor readings are anomalous (dbscan,
robust scaling)? Which kinds of patients are there (hdbscan)? The tables beside the requests are
synthetic; ``write_tables`` made them.
"""

import asyncio
from pathlib import Path

import numpy as np
import pandas as pd

from tsclust_model import clustering_analysis_tool, make_hospital
from tsclust_model.analysis.schema import read_request

REQUESTS = Path(__file__).parent
VITALS = [
    *("age", "heart_rate", "systolic_pressure", "temperature", "oxygen_saturation"),
    *("creatinine", "c_reactive_protein", "body_mass_index"),
]


def make_customers(n_rows: int = 400, random_state: int = 0) -> pd.DataFrame:
    """Four kinds of customers: regular, large, rare, and those who return most orders."""
    rng = np.random.default_rng(random_state)
    kinds = np.array(
        [
            [900, 12, 75, 20, 0.05],
            [5200, 30, 173, 8, 0.03],
            [150, 2, 75, 160, 0.02],
            [1400, 18, 78, 25, 0.55],
        ]
    )
    middle = kinds[rng.choice(4, n_rows, p=[0.45, 0.15, 0.25, 0.15])]
    values = middle * rng.normal(1, 0.12, middle.shape)
    names = ["annual_spend", "orders", "basket_value", "days_since_order", "returns_share"]
    customers = pd.DataFrame(values, columns=names).round(3)
    return customers.assign(customer=[f"C{i}" for i in range(n_rows)])


def make_sensors(n_rows: int = 400, random_state: int = 0) -> pd.DataFrame:
    """Two operating modes of a machine, and 3% faults at random."""
    rng = np.random.default_rng(random_state)
    regime = rng.random(n_rows) < 0.6
    fault = rng.random(n_rows) < 0.03
    center = np.where(regime[:, None], [70.0, 0.2, 1500.0], [45.0, 0.1, 800.0])
    values = rng.normal(center, [1.5, 0.02, 30.0])
    values[fault] = rng.uniform([20, 0, 100], [110, 1, 3000], size=(int(fault.sum()), 3))
    frame = pd.DataFrame(values, columns=["temperature", "vibration", "speed"]).round(3)
    return frame.assign(fault=np.where(fault, "fault", "none"))


def make_patients() -> pd.DataFrame:
    """Vital signs and wards of 400 patients of the synthetic hospital."""
    return make_hospital(400)[[*VITALS, "ward"]].round(3)


def write_tables(folder: Path) -> None:
    make_customers().to_csv(folder / "customers.csv", index=False)
    make_sensors().to_csv(folder / "sensors.csv", index=False)
    make_patients().to_csv(folder / "patients.csv", index=False)


async def ask(name: str) -> dict:
    return (await clustering_analysis_tool(read_request(REQUESTS / name)))["clustering_results"]


async def main() -> None:
    customers = await ask("customer_segmentation.json")
    for profile in customers["cluster_analysis"]["cluster_profiles"]:
        feature, figures = next(iter(profile["characteristics"].items()))
        print(f"{profile['share']:.0%} of customers: {feature} {figures['mean']:.2f}")

    sensors = await ask("anomaly_detection.json")
    print(len(sensors["cluster_analysis"]["outlier_analysis"]["outliers"]), "anomalous readings")

    hospital = await ask("hospital_hdbscan.json")
    rand = hospital["evaluation_metrics"]["adjusted_rand_score"]
    print(f"{hospital['model_info']['n_clusters']} kinds of patients, {rand:.2f} Rand with wards")
    print(*hospital["recommendations"]["interpretation_guidance"][:2], sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
